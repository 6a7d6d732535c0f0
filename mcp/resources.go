package mcp

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
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// fileURI is the URI of a stored file, before its id.
const fileURI = "vivarium://files/"

// maxResourceBytes bounds what is read as a resource, which clients and the
// library hold in memory more than once.
const maxResourceBytes = 10 << 20

// addResources offers stored files as resources. They are not listed: an id is
// told with the result that it belongs to.
func (s *Server) addResources() {
	s.server.AddResourceTemplate(mcpsdk.NewResourceTemplate(fileURI+"{file_id}", "file",
		mcpsdk.WithTemplateTitle("A file that a program has made"),
		mcpsdk.WithTemplateDescription("The answers of the tools link to such files."),
	), s.readResource)
}

// hideUnknown has unknown files be unknown resources, of which the library (v1.2.1)
// tells with the code that each revision of the protocol has for them, and with the
// URI: that is the one place for words of ours. What a handler says would be an
// internal error.
func (s *Server) hideUnknown(hooks *mcpserver.Hooks) {
	hooks.AddBeforeReadResource(func(ctx context.Context, _ any, request *mcpsdk.ReadResourceRequest) {
		id, ours := strings.CutPrefix(request.Params.URI, fileURI)
		if !ours {
			return
		}
		if _, err := s.opts.Files.Stat(ctx, id); err != nil && execution.AsError(err).Code == execution.NotFound {
			request.Params.URI = execution.AsError(err).Message + ": it has expired, or never was"
		}
	})
}

func (s *Server) readResource(ctx context.Context, request mcpsdk.ReadResourceRequest) ([]mcpsdk.ResourceContents, error) {
	uri := request.Params.URI
	file, err := s.opts.Files.Get(ctx, strings.TrimPrefix(uri, fileURI))
	if err != nil {
		return nil, s.resourceError(ctx, err)
	}
	defer func() { _ = file.Close() }() // it was read
	if file.Size > maxResourceBytes {
		return nil, fmt.Errorf("the file has %s bytes, more than the %s that can be read as a resource%s",
			grouped(file.Size), grouped(maxResourceBytes), orGet(ctx, file.ID))
	}
	// As text, each byte may be six in JSON; in base64 it is more than one.
	if err := execution.AccountOf(ctx).Take((loadTimes + textTimes) * file.Size); err != nil {
		return nil, s.resourceError(ctx, err)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, s.resourceError(ctx, err)
	}
	if text := escapedLen(data) - len(data); text > 0 {
		if err := execution.AccountOf(ctx).Take(answerTimes * int64(text)); err != nil {
			return nil, s.resourceError(ctx, err)
		}
	}
	return []mcpsdk.ResourceContents{resource(uri, mimeType(file.Name, data), data)}, nil
}

// orGet says how else a file can be had.
func orGet(ctx context.Context, id string) string {
	if url := fileURL(ctx, id); url != "" {
		return "; GET " + url + " gives it whole"
	}
	return "; pass its file_id in files of execute_python to look at parts"
}

// resourceError is what a client is told of a file that cannot be read.
func (s *Server) resourceError(ctx context.Context, err error) error {
	domain := execution.AsError(err)
	if domain.Code == execution.Internal {
		s.opts.Log.ErrorContext(ctx, "a resource could not be read", "error", err)
	}
	return fmt.Errorf("%s", domain.Explain())
}

func resource(uri, kind string, data []byte) mcpsdk.ResourceContents {
	if isText(data) {
		return mcpsdk.TextResourceContents{URI: uri, MIMEType: kind, Text: string(data)}
	}
	return mcpsdk.BlobResourceContents{URI: uri, MIMEType: kind, Blob: base64.StdEncoding.EncodeToString(data)}
}

// isText says whether a file can be shown as text.
func isText(data []byte) bool { return utf8.Valid(data) && !bytes.ContainsRune(data, 0) }

// mimeType gives a file's type by its name, or else by how it begins.
func mimeType(name string, data []byte) string {
	extension := strings.ToLower(path.Ext(name))
	switch extension { // what Go's own table lacks
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
	kind, _, _ := mime.ParseMediaType(http.DetectContentType(data)) // it gives valid ones
	return kind
}

// link makes a link to a stored file.
func link(ctx context.Context, file execution.File) mcpsdk.ResourceLink {
	about := grouped(file.Size) + " bytes"
	if url := fileURL(ctx, file.ID); url != "" {
		about += ", also at " + url
	}
	return mcpsdk.NewResourceLink(fileURI+file.ID, file.Path, about, mimeType(file.Path, nil))
}

// escapedLen is how long a text is in JSON, as the library (v1.2.1) writes it.
func escapedLen(text []byte) int {
	size := len(text)
	for _, c := range text {
		switch {
		case c < 0x20, c == '<', c == '>', c == '&':
			size += len(`\u0000`) - 1
		case c == '"', c == '\\':
			size++
		}
	}
	return size
}
