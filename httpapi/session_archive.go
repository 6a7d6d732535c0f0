package httpapi

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// archiveBytes is what an archive may take beside the contents of its files: a header, a
// long name, and padding for each.
const archiveBytes = execution.MaxEntries * 2048

// packFolder answers with a folder as an archive, which is made while it is read.
func (a *api) packFolder(w http.ResponseWriter, r *http.Request, folder string) error {
	id := r.PathValue("session_id")
	answer := &archiveAnswer{w: w, folder: folder, archive: tar.NewWriter(struct{ io.Writer }{w})}
	if r.Method == http.MethodHead {
		if err := a.checkFolder(r.Context(), id, folder); err != nil {
			return err
		}
		answer.begin()
		return nil
	}
	err := a.opts.Sessions.PackFolder(r.Context(), id, execution.PackRequest{Path: folder, Entry: answer.add, Keep: answer.keep})
	if err != nil && !answer.begun {
		return err
	}
	answer.begin()
	if err != nil || answer.err != nil || answer.archive.Close() != nil {
		panic(http.ErrAbortHandler) // the client must not mistake a part of the archive for the whole
	}
	return nil
}

// checkFolder returns the error with which a folder could not be read.
func (a *api) checkFolder(ctx context.Context, id, folder string) error {
	found, err := a.opts.Sessions.ListFiles(ctx, id, execution.ListRequest{Path: folder, Most: 1})
	if err == nil && len(found.Entries) == 1 && found.Entries[0].Path == folder {
		err = &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf("Folder '%s' not found in the session", execution.Clip(folder))}
	}
	return err
}

// archiveAnswer sends a folder to the client while it is read from the sandbox. Paths in
// the archive are relative to the folder.
type archiveAnswer struct {
	w       http.ResponseWriter
	folder  string
	archive *tar.Writer
	entry   execution.Entry // the file whose content comes next
	begun   bool
	err     error // the first
}

func (a *archiveAnswer) begin() {
	if a.begun {
		return
	}
	a.begun = true
	name := "workspace"
	if a.folder != "" {
		name = lastPart(a.folder)
	}
	a.w.Header().Set("Content-Type", tarType)
	a.w.Header().Set("Content-Disposition", attachment(name+".tar"))
	a.w.WriteHeader(http.StatusOK)
}

// add takes in the description of an entry.
func (a *archiveAnswer) add(entry execution.Entry) {
	a.begin()
	if entry.Path = strings.TrimPrefix(strings.TrimPrefix(entry.Path, a.folder), "/"); entry.Kind == execution.KindFolder {
		a.writeHeader(entry)
	}
	a.entry = entry
}

func (a *archiveAnswer) writeHeader(entry execution.Entry) {
	header := &tar.Header{Name: entry.Path, Typeflag: tar.TypeReg, Size: entry.Size, ModTime: entry.Modified, Mode: 0o644}
	switch {
	case entry.Kind == execution.KindFolder:
		header.Name, header.Typeflag, header.Size, header.Mode = entry.Path+"/", tar.TypeDir, 0, 0o755
	case entry.Executable:
		header.Mode = 0o755
	}
	a.note(a.archive.WriteHeader(header))
}

func (a *archiveAnswer) note(err error) {
	if a.err == nil {
		a.err = err
	}
}

// keep implements [execution.Keep].
func (a *archiveAnswer) keep(ctx context.Context, path string, content io.Reader) (string, error) {
	if a.err != nil {
		return "", a.err
	}
	defer transferring(ctx, a.w)()
	a.writeHeader(a.entry)
	_, err := io.Copy(struct{ io.Writer }{a.archive}, content)
	a.note(err)
	return path, a.err
}

// unpackFolder writes the files of an archive to a folder of a session, all or none.
func (a *api) unpackFolder(w http.ResponseWriter, r *http.Request) error {
	folder, _ := folderIn(r)
	if err := (execution.ListRequest{Path: folder}).Check(); err != nil {
		return placed(r, err)
	}
	source := &body{w: w, r: r.Body}
	archive := &archiveBody{folder: folder, source: source}
	err := a.opts.Sessions.WriteFiles(r.Context(), r.PathValue("session_id"), execution.WriteRequest{More: archive.next, Spent: source.spent})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &apiError{status: http.StatusUnprocessableEntity, Detail: "the body ends early"}
	case errors.As(err, &tooLarge):
		return &apiError{status: http.StatusRequestEntityTooLarge, Detail: fileTooLarge(a.opts.Limits.WorkspaceBytes)}
	case errors.Is(err, tar.ErrHeader):
		return unprocessable(fault{Type: "value_error", Loc: []any{"body"}, Msg: "the body must be a tar archive that is not compressed"})
	case err != nil:
		return placed(r, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// archiveBody reads an archive as the files of a folder.
type archiveBody struct {
	folder string
	source *body
	tar    *tar.Reader // nil until the first file is asked for
}

// next returns the next file or folder. It is for [execution.WriteRequest].
func (b *archiveBody) next(ctx context.Context) (execution.Input, error) {
	defer b.source.heed(ctx)()
	if b.tar == nil {
		b.source.opened, b.tar = true, tar.NewReader(b.source.r)
	}
	for {
		header, err := b.tar.Next()
		if err != nil {
			return execution.Input{}, err
		}
		file := execution.Input{Path: b.path(header.Name), Size: header.Size, Executable: header.Mode&0o100 != 0, Source: current{b}}
		switch kind := unpackable(header.Typeflag); {
		case header.Typeflag == tar.TypeXGlobalHeader, file.Path == b.folder && header.Typeflag == tar.TypeDir:
			continue
		case kind != "":
			return file, &execution.Error{Code: execution.Invalid, Message: "the request is not valid", Fields: []execution.FieldError{{
				Field: execution.FieldArchive, Fault: execution.FaultValue, Message: "is " + kind + ", which is not unpacked", Value: header.Name,
			}}}
		case header.Typeflag == tar.TypeDir:
			file.Folder, file.Size, file.Source = true, 0, nil
		}
		return file, nil
	}
}

// path returns where an entry goes. It keeps what makes a name invalid, for the domain
// to refuse.
func (b *archiveBody) path(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	parts := make([]string, 0, strings.Count(name, "/")+1)
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return name
		}
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return path.Join(b.folder, strings.Join(parts, "/"))
}

// unpackable returns what an entry is that is not unpacked, or "".
func unpackable(kind byte) string {
	switch kind {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont, tar.TypeDir, tar.TypeXGlobalHeader:
		return ""
	case tar.TypeSymlink:
		return "a symbolic link"
	case tar.TypeLink:
		return "a hard link"
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a pipe"
	}
	return "of an unknown type"
}

// current is the content of an archive's current file.
type current struct{ archive *archiveBody }

// Open implements [execution.Source].
func (c current) Open(ctx context.Context) (io.ReadCloser, error) {
	return &bodySource{c.archive.tar, c.archive.source.heed(ctx)}, nil
}
