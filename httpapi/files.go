package httpapi

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// Files stores files between requests.
type Files interface {
	Put(ctx context.Context, name string, r io.Reader) (filestore.Info, error)
	Get(ctx context.Context, id string) (*filestore.File, error)
	Hold(ctx context.Context, id string) (*filestore.Held, error)
	List(ctx context.Context) ([]filestore.Info, error)
	Delete(ctx context.Context, id string) error
}

const (
	filesPath = "/v1/files"
	// formBytes bounds the form around an uploaded file.
	formBytes = 64 << 10
	// transferTime bounds the transfer of a file, which is larger than other bodies.
	transferTime = 15 * time.Minute
	// chunkBytes is how much of a file is read or written at a time.
	chunkBytes = 256 << 10
	// maxFilenameBytes is the longest name in common file systems.
	maxFilenameBytes = 255
)

type uploadedFile struct {
	FileID    string `json:"file_id" doc:"the id of the file for runs and the other routes" example:"8cae838bb6d3d0152e9be8935cec1150"`
	Filename  string `json:"filename" doc:"the name that the client gave the file" example:"scores.csv"`
	SizeBytes int64  `json:"size_bytes" example:"25"`
}

type listedFile struct {
	FileID     string   `json:"file_id" doc:"the id of the file for runs and the other routes" example:"8cae838bb6d3d0152e9be8935cec1150"`
	Filename   string   `json:"filename" doc:"the name that the client gave the file" example:"scores.csv"`
	SizeBytes  int64    `json:"size_bytes" example:"25"`
	UploadTime unixTime `json:"upload_time" doc:"when the file was stored, in Unix seconds, as a float" example:"1764000000.5"`
}

type fileList struct {
	Files []listedFile `json:"files" nullable:"false"`
}

func listed(info filestore.Info) listedFile {
	return listedFile{FileID: info.ID, Filename: info.Name, SizeBytes: info.Size, UploadTime: unixTimeOf(info.Uploaded)}
}

func uploaded(info filestore.Info) uploadedFile {
	return uploadedFile{FileID: info.ID, Filename: info.Name, SizeBytes: info.Size}
}

func (a *api) registerFiles() {
	form := bodyPolicy{
		limit: a.opts.MaxFileBytes + formBytes, refusal: fileTooLarge(a.opts.MaxFileBytes), within: transferTime, isFile: true,
	}
	a.registerRaw(policy{body: form}, uploadOperation(a.huma), a.upload)
	a.registerRaw(policy{longAnswer: true}, listOperation(a.huma), a.listFiles)
	a.registerRaw(policy{}, downloadOperation(), a.download)
	a.registerRaw(policy{}, deleteOperation(), a.deleteFile)
}

// writeError answers with an error of the domain or an [*apiError].
func (a *api) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var shaped *apiError
	switch {
	case errors.Is(err, errStalled):
		err = &apiError{status: http.StatusRequestTimeout, Detail: errStalled.Error()} // as the library answers
	case errors.Is(err, errBroken):
		err = brokenBody()
	}
	if !errors.As(err, &shaped) && !errors.As(a.toHTTP(r.Context(), err), &shaped) {
		return // toHTTP returns no other type
	}
	maps.Copy(w.Header(), shaped.header)
	writeJSON(w, shaped.status, shaped)
}

// upload stores the field "file" of a form as it arrives.
func (a *api) upload(w http.ResponseWriter, r *http.Request) error {
	around := &aroundFile{Reader: formBody(r.Body), left: formBytes}
	r.Body = struct {
		io.Reader
		io.Closer
	}{around, r.Body}
	form, err := r.MultipartReader()
	if err != nil {
		return fieldFault("missing", "the body must be multipart/form-data with the field file")
	}
	file, err := nextFile(form)
	switch {
	case err == io.EOF: //nolint:errorlint // an error that wraps io.EOF is a fault
		return fieldFault("missing", "the field file is required")
	case err != nil:
		return formFault(cmp.Or(around.broken, err))
	}
	around.left = math.MaxInt64
	info, err := a.opts.Files.Put(r.Context(), filename(file), &onlyFile{form: form, file: file, around: around})
	if err != nil {
		return formFault(cmp.Or(around.broken, err))
	}
	writeJSON(w, http.StatusCreated, uploaded(info))
	return nil
}

// formBody returns a reader of a form. It reads larger pieces than the 4 KB that the
// form's reader asks for, and fails at the end of the body: a form contains its own end,
// and the form's reader would accept some forms that are cut short if it saw io.EOF. The
// last line of a form may lack its line break.
func formBody(body io.Reader) io.Reader {
	return io.MultiReader(bufio.NewReaderSize(body, chunkBytes), strings.NewReader("\r\n"), cutShort{})
}

// aroundFile bounds the part of a form around its file: the form's reader would hold
// headers of 10 MB.
type aroundFile struct {
	io.Reader
	left   int64
	broken error // of the body, which the form's reader may hide
}

func (a *aroundFile) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, errLongForm
	}
	n, err := a.Reader.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	if errors.Is(err, errBroken) {
		a.broken = err
	}
	return n, err
}

var errLongForm = errors.New("the form has too much around its file")

// cutShort fails: a form should have ended before it is read.
type cutShort struct{}

func (cutShort) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// formError is an error of reading a form.
type formError struct{ err error }

func (e formError) Error() string { return "form: " + e.err.Error() }

func (e formError) Unwrap() error { return e.err }

// nextFile returns the next part that is the field "file", or [io.EOF]. Any other error is
// a formError.
func nextFile(form *multipart.Reader) (*multipart.Part, error) {
	for {
		part, err := form.NextRawPart()
		switch {
		case err == io.EOF: // an error that wraps it is a fault
			return nil, io.EOF
		case err != nil:
			return nil, formError{err}
		case part.FormName() == "file":
			return part, nil
		}
	}
}

// onlyFile reads a file and then the rest of its form. A form that is cut short or has two
// files is an error, so that nothing of it is stored.
type onlyFile struct {
	form   *multipart.Reader
	file   *multipart.Part
	around *aroundFile
}

func (f *onlyFile) Read(p []byte) (int, error) {
	n, err := f.file.Read(p)
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF: //nolint:errorlint // an error that wraps io.EOF is a fault
		return n, formError{err}
	}
	f.around.left = formBytes
	_, err = nextFile(f.form)
	if err == nil {
		err = fieldFault("value_error", "the field file is given twice; upload one file at a time")
	}
	return n, err
}

// filename returns the client's name for a file, with its folders: it is never used as a
// path.
func filename(part *multipart.Part) string {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	name := strings.ToValidUTF8(params["filename"], "\uFFFD")
	if err != nil || name == "" {
		return "upload"
	}
	for len(name) > maxFilenameBytes {
		name = strings.ToValidUTF8(name[:maxFilenameBytes], "")
	}
	return name
}

func fieldFault(kind, message string) error {
	return &apiError{status: http.StatusUnprocessableEntity, Detail: []fault{
		{Type: kind, Loc: []any{"body", "file"}, Msg: message, Input: nil},
	}}
}

// formFault returns the answer for a fault of a form, and other errors as they are.
func formFault(err error) error {
	var tooLarge *http.MaxBytesError
	var shaped *apiError
	var domain *execution.Error
	var form formError
	switch {
	case errors.As(err, &tooLarge):
		return &apiError{status: http.StatusRequestEntityTooLarge, Detail: fileTooLarge(tooLarge.Limit - formBytes)}
	case errors.As(err, &shaped), errors.As(err, &domain), errors.Is(err, errStalled), errors.Is(err, errBroken):
		return err
	case errors.Is(err, errLongForm):
		return fieldFault("too_long", fmt.Sprintf("the headers and other fields of the form must not exceed %d bytes", formBytes))
	case errors.As(err, &form):
		return fieldFault("value_error", "the form ends early or is not valid multipart/form-data")
	}
	return err
}

func fileTooLarge(limit int64) string {
	return "File size exceeds maximum of " + strconv.FormatInt(limit>>20, 10) + " MB"
}

func (a *api) listFiles(w http.ResponseWriter, r *http.Request) error {
	found, err := a.opts.Files.List(r.Context())
	if err != nil {
		return err
	}
	list := fileList{Files: make([]listedFile, len(found))}
	for i, info := range found {
		list.Files[i] = listed(info)
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (a *api) download(w http.ResponseWriter, r *http.Request) error {
	file, err := a.opts.Files.Get(r.Context(), r.PathValue("file_id"))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := execution.AccountOf(r.Context()).Take(chunkBytes); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", attachment(file.Name))
	w.Header().Set("Content-Length", strconv.FormatInt(file.Size, 10))
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(transferTime)) // not for test recorders
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{file}, make([]byte, chunkBytes)); err != nil {
		panic(http.ErrAbortHandler) // so that the client notices that the file is not complete
	}
	return nil
}

// attachment returns a Content-Disposition with which a browser saves a file under its
// name and never shows it (RFC 6266). Old clients use the plain form, others the exact
// one.
func attachment(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7E || strings.ContainsRune(`"\/%`, r) {
			return '_'
		}
		return r
	}, name)
	header := `attachment; filename="` + plain + `"`
	if plain != name {
		header += "; filename*=UTF-8''" + percentEncode(name)
	}
	return header
}

// percentEncode encodes a value as RFC 8187 defines it.
func percentEncode(text string) string {
	const plain = "!#$&+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

func (a *api) deleteFile(w http.ResponseWriter, r *http.Request) error {
	if err := a.opts.Files.Delete(r.Context(), r.PathValue("file_id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
