package render

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"unicode/utf8"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// FileURI precedes the id of a stored file in its URI.
const FileURI = "vivarium://files/"

// maxResourceBytes bounds what is read as a resource. Clients and the library hold it in
// memory more than once.
const maxResourceBytes = 10 << 20

// Resource renders a stored file as the contents of a resource.
func (r *Renderer) Resource(ctx context.Context, uri string, file *filestore.File) (mcpsdk.ResourceContents, error) {
	if file.Size > maxResourceBytes {
		return nil, &execution.Error{Code: execution.TooLarge, Message: fmt.Sprintf(
			"the file has %s bytes, more than the %s that can be read as a resource%s",
			Grouped(file.Size), Grouped(maxResourceBytes), r.insteadOfReading(ctx, file.ID))}
	}
	account := execution.AccountOf(ctx)
	// As text, each byte may take six in JSON. Base64 takes less.
	if err := account.Take((loadTimes + textTimes) * file.Size); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	if err := account.Take(answerTimes * escapedBytes(data)); err != nil {
		return nil, err
	}
	kind := mimeType(file.Name, data)
	if isText(data) {
		return mcpsdk.TextResourceContents{URI: uri, MIMEType: kind, Text: string(data)}, nil
	}
	return mcpsdk.BlobResourceContents{URI: uri, MIMEType: kind, Blob: base64.StdEncoding.EncodeToString(data)}, nil
}

// insteadOfReading returns how else to get a file.
func (r *Renderer) insteadOfReading(ctx context.Context, id string) string {
	if url := r.opts.FileURL(ctx, id); url != "" {
		return "; GET " + url + " returns it whole"
	}
	return "; pass its file_id in files of execute_python to look at parts"
}

// link returns a link to a stored file.
func (r *Renderer) link(ctx context.Context, file execution.File) mcpsdk.ResourceLink {
	about := Grouped(file.Size) + " bytes"
	if url := r.opts.FileURL(ctx, file.ID); url != "" {
		about += ", also at " + url
	}
	return mcpsdk.NewResourceLink(FileURI+file.ID, file.Path, about, mimeType(file.Path, nil))
}

// isText reports whether a file can be shown as text.
func isText(data []byte) bool { return utf8.Valid(data) && !bytes.ContainsRune(data, 0) }

// mimeType returns the type of a file by its name, or else by its first bytes.
func mimeType(name string, data []byte) string {
	extension := strings.ToLower(path.Ext(name))
	switch extension { // those that Go's own table lacks
	case ".csv":
		return "text/csv"
	case ".md":
		return "text/markdown"
	case ".txt", ".log", ".py":
		return "text/plain"
	case ".xlsx":
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case ".docx":
		return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	}
	if kind, _, err := mime.ParseMediaType(mime.TypeByExtension(extension)); err == nil {
		return kind
	}
	if data == nil {
		return "application/octet-stream"
	}
	kind, _, _ := mime.ParseMediaType(http.DetectContentType(data)) // its results are always valid
	return kind
}

// escapedBytes returns by how many bytes a text grows in JSON, as encoding/json writes it.
func escapedBytes(text []byte) int64 {
	var size int64
	for _, c := range text {
		switch {
		case c < 0x20, c == '<', c == '>', c == '&':
			size += int64(len(`\u0000`) - 1)
		case c == '"', c == '\\':
			size++
		}
	}
	return size
}
