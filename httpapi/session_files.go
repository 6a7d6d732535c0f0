package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	sessionFilesPath = sessionPath + "/files"
	sessionFilePath  = sessionFilesPath + "/{path}"
	tarType          = "application/x-tar"
)

type sessionEntry struct {
	Path         string              `json:"path" doc:"relative to the workspace"`
	Kind         execution.EntryKind `json:"kind" enum:"file,folder,link,other"`
	SizeBytes    int64               `json:"size_bytes" doc:"the bytes of a file; 0 for a folder"`
	ModifiedTime unixTime            `json:"modified_time" doc:"when it was changed, in Unix seconds"`
}

type sessionListing struct {
	Files        []sessionEntry `json:"files" nullable:"false" doc:"files, folders and links, a folder before what it contains"`
	SkippedFiles []skippedFile  `json:"skipped_files" nullable:"false" doc:"entries that cannot be listed, with the reason"`
	Truncated    bool           `json:"truncated" doc:"whether there are more entries"`
	ExpiresAt    unixTime       `json:"expires_at" doc:"Unix seconds, as a float; when the session ends unless another call is made before" example:"1764000901.5"`
}

type renameFile struct {
	Path string `json:"path" doc:"the new path, relative to the workspace"`
}

func (a *api) registerSessionFiles() {
	limit := a.opts.Limits.WorkspaceBytes
	file := bodyPolicy{limit: limit + archiveBytes, refusal: fileTooLarge(limit), within: transferTime, isFile: true}
	a.registerRaw(policy{longAnswer: true}, listSessionFilesOperation(a.huma), a.readFile)
	a.registerRaw(policy{body: file}, unpackOperation(), a.writeFile)
	a.registerRaw(policy{}, readFileOperation(), a.readFile)
	a.registerRaw(policy{body: file}, writeFileOperation(), a.writeFile)
	a.registerRaw(policy{}, deleteSessionFileOperation(), a.deleteSessionFile)
	a.registerRaw(policy{}, renameFileOperation(a.huma), a.renameFile)
}

// readFile answers with a file, a list of files, or a folder as an archive.
func (a *api) readFile(w http.ResponseWriter, r *http.Request) error {
	path, isFolder := folderIn(r)
	packed, err := wantsArchive(r)
	switch {
	case err != nil:
		return err
	case packed:
		err = a.packFolder(w, r, path)
	case isFolder:
		err = a.listSessionFiles(w, r, path)
	case r.Method == http.MethodHead:
		err = a.statFile(w, r, path)
	default:
		err = a.sendFile(w, r, path)
	}
	return placed(r, err)
}

// folderIn returns the path in a URL, and whether it names a folder: then it ends with a
// slash, or is in the query or missing.
func folderIn(r *http.Request) (path string, isFolder bool) {
	path = r.PathValue("path")
	if path == "" {
		path = r.URL.Query().Get("path")
		return strings.TrimSuffix(path, "/"), true
	}
	folder, isFolder := strings.CutSuffix(path, "/")
	return folder, isFolder
}

// wantsArchive reports whether the answer is to be an archive.
func wantsArchive(r *http.Request) (bool, error) {
	if format, given := r.URL.Query()["format"]; given {
		if format[0] != "tar" {
			return false, unprocessable(newFault("value_error", "must be tar", format[0], "query", "format"))
		}
		return true, nil
	}
	for accepted := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		if kind, _, err := mime.ParseMediaType(accepted); err == nil && kind == tarType {
			return true, nil
		}
	}
	return false, nil
}

func (a *api) listSessionFiles(w http.ResponseWriter, r *http.Request, path string) error {
	found, err := a.opts.Sessions.ListFiles(r.Context(), r.PathValue("session_id"), execution.ListRequest{Path: path})
	if err != nil {
		return err
	}
	list := sessionListing{
		Files: make([]sessionEntry, len(found.Entries)), SkippedFiles: []skippedFile{}, Truncated: found.Cut(), ExpiresAt: endOf(found.Session),
	}
	for i, entry := range found.Entries {
		list.Files[i] = sessionEntry{entry.Path, entry.Kind, entry.Size, unixTimeOf(entry.Modified)}
	}
	for _, skipped := range found.Skipped {
		list.SkippedFiles = append(list.SkippedFiles, skippedFile{skipped.Path, skipped.Reason})
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// statFile answers HEAD as GET would be answered.
func (a *api) statFile(w http.ResponseWriter, r *http.Request, path string) error {
	if err := (execution.ReadRequest{Path: path}).Validate(); err != nil {
		return err
	}
	found, err := a.opts.Sessions.ListFiles(r.Context(), r.PathValue("session_id"), execution.ListRequest{Path: path, Most: 1})
	if err != nil {
		return err
	}
	if len(found.Entries) != 1 || found.Entries[0].Path != path || found.Entries[0].Kind != execution.KindFile {
		return unprocessable(newFault("value_error", "cannot be used: not a regular file", path, "path", "path"))
	}
	describeFile(w.Header(), found.Entries[0])
	w.WriteHeader(http.StatusOK)
	return nil
}

// describeFile sets the headers of a file's answer.
func describeFile(header http.Header, entry execution.Entry) {
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Disposition", attachment(lastPart(entry.Path)))
	header.Set("Content-Length", strconv.FormatInt(entry.Size, 10))
	header.Set("Last-Modified", entry.Modified.UTC().Format(http.TimeFormat))
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func (a *api) sendFile(w http.ResponseWriter, r *http.Request, path string) error {
	answer := fileAnswer{w: w, path: path}
	err := a.opts.Sessions.ReadFile(r.Context(), r.PathValue("session_id"), execution.ReadRequest{
		Path: path, Keep: answer.keep, Entry: func(entry execution.Entry) { answer.entry = &entry },
	})
	if err != nil && answer.begun {
		panic(http.ErrAbortHandler) // the client must not mistake a part of the file for the whole
	}
	return err
}

// fileAnswer sends a file to the client while it is read from the sandbox.
type fileAnswer struct {
	w     http.ResponseWriter
	path  string
	entry *execution.Entry // nil in a session of an earlier version
	begun bool
}

// keep implements [execution.Keep].
func (a *fileAnswer) keep(ctx context.Context, _ string, content io.Reader) (string, error) {
	a.begun = true
	a.w.Header().Set("Content-Type", "application/octet-stream")
	a.w.Header().Set("Content-Disposition", attachment(lastPart(a.path)))
	if a.entry != nil {
		describeFile(a.w.Header(), *a.entry)
	}
	a.w.WriteHeader(http.StatusOK)
	defer transferring(ctx, a.w)()
	_, err := io.Copy(struct{ io.Writer }{a.w}, content)
	return a.path, err
}

// transferring bounds the time for a transfer to a client, until the function that it
// returns is called. A client that does not read, or has not sent its whole body, must
// not delay shutdown.
func transferring(ctx context.Context, w http.ResponseWriter) (stop func() bool) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(transferTime)) // not for test recorders
	return context.AfterFunc(ctx, func() {
		_ = control.SetWriteDeadline(time.Now())
		_ = control.SetReadDeadline(time.Now())
	})
}

// writeFile writes a file, or the files of an archive into a folder.
func (a *api) writeFile(w http.ResponseWriter, r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == tarType {
		return a.unpackFolder(w, r)
	}
	if r.PathValue("path") == "" {
		return unprocessable(newFault("value_error", "must be "+tarType+" to write to a folder", r.Header.Get("Content-Type"), "header", "Content-Type"))
	}
	if limit := a.opts.Limits.WorkspaceBytes; r.ContentLength > limit {
		return &apiError{status: http.StatusRequestEntityTooLarge, Detail: fileTooLarge(limit)}
	}
	if r.ContentLength < 0 {
		return &apiError{status: http.StatusLengthRequired, Detail: "the request must have a Content-Length"}
	}
	source := &body{w: w, r: r.Body}
	err := a.opts.Sessions.WriteFiles(r.Context(), r.PathValue("session_id"), execution.WriteRequest{
		Files: []execution.Input{{Path: r.PathValue("path"), Size: r.ContentLength, Source: source}}, Spent: source.spent,
	})
	if err != nil {
		return placed(r, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// body is a request's body, which can be read only once.
type body struct {
	w      http.ResponseWriter
	r      io.Reader
	opened bool
}

// Open implements [execution.Source]. Reads from a client that sends nothing fail when
// ctx ends.
func (b *body) Open(ctx context.Context) (io.ReadCloser, error) {
	if b.opened {
		return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again"}
	}
	b.opened = true
	return &bodySource{b.r, b.heed(ctx)}, nil
}

// heed makes reads fail when ctx ends, until the function that it returns is called.
func (b *body) heed(ctx context.Context) (stop func() bool) {
	control := http.NewResponseController(b.w)
	return context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Now()) }) // not for test recorders
}

// spent is for [execution.WriteRequest].
func (b *body) spent() bool { return b.opened }

type bodySource struct {
	io.Reader
	stop func() bool
}

// Close does not close the body: the server does.
func (b *bodySource) Close() error {
	b.stop()
	return nil
}

func (a *api) deleteSessionFile(w http.ResponseWriter, r *http.Request) error {
	path := strings.TrimSuffix(r.PathValue("path"), "/")
	if err := a.opts.Sessions.DeleteFile(r.Context(), r.PathValue("session_id"), path); err != nil {
		return placed(r, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) renameFile(w http.ResponseWriter, r *http.Request) error {
	target, err := newPath(r.Body)
	if err != nil {
		return err
	}
	err = a.opts.Sessions.RenameFile(r.Context(), r.PathValue("session_id"), execution.RenameRequest{Path: r.PathValue("path"), Target: target})
	if err != nil {
		return placed(r, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// newPath returns the path in the body of a request to rename a file.
func newPath(body io.Reader) (string, error) {
	var given map[string]json.RawMessage
	err := json.NewDecoder(body).Decode(&given)
	if refused := bodyFault(err); refused != nil {
		return "", refused
	}
	if err != nil {
		return "", unprocessable(fault{Type: "json_invalid", Loc: []any{"body"}, Msg: "the body is not a valid JSON object: " + execution.Clip(err.Error())})
	}
	raw, found := given["path"]
	if !found {
		return "", unprocessable(fault{Type: "missing", Loc: []any{"body", "path"}, Msg: "path is required"})
	}
	var path *string
	if err := json.Unmarshal(raw, &path); err != nil || path == nil {
		return "", unprocessable(fault{Type: "string_type", Loc: []any{"body", "path"}, Msg: "expected string", Input: execution.Clip(string(raw))})
	}
	return *path, nil
}

// placed returns an error with its faults placed in the request for files of a session.
func placed(r *http.Request, err error) error {
	domain, ok := errors.AsType[*execution.Error](err)
	if !ok || domain.Code != execution.Invalid || len(domain.Fields) == 0 {
		return err
	}
	locate := inURL
	if r.PathValue("path") == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		locate = inQuery
	}
	return &apiError{status: http.StatusUnprocessableEntity, Detail: invalidDetail(domain.Fields, locate)}
}
