package mcp

import (
	"context"
	"errors"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp/render"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// addResources offers the list of packages, and stored files. Those are not listed: a result names
// the ids of its files.
func (s *Server) addResources() {
	s.server.AddResourceTemplate(mcpsdk.NewResourceTemplate(render.FileURI+"{file_id}", "file",
		mcpsdk.WithTemplateTitle("A file that a program has made"),
		mcpsdk.WithTemplateDescription("The answers of the tools link to such files."),
	), s.readResource)
	s.server.AddResource(mcpsdk.NewResource(packagesURI, "packages",
		mcpsdk.WithResourceTitle("Python's packages"),
		mcpsdk.WithResourceDescription("The version of Python in the sandbox, and all packages with theirs."),
		mcpsdk.WithMIMEType("text/plain"),
	), s.readPackages)
}

// packagesURI is the resource that lists the packages of the sandbox. The description of
// execute_python has room for few.
const packagesURI = "vivarium://packages"

// readPackages lists the packages. If they are unknown, because no sandbox is kept ready, it finds them.
func (s *Server) readPackages(ctx context.Context, request mcpsdk.ReadResourceRequest) ([]mcpsdk.ResourceContents, error) {
	s.awaitPrepared(ctx)
	found := s.facts.Load()
	if found == nil {
		var err error
		if found, err = s.findFacts(ctx); err != nil {
			return nil, s.resourceError(ctx, err)
		}
		s.facts.Store(found)
	}
	return []mcpsdk.ResourceContents{mcpsdk.TextResourceContents{URI: request.Params.URI, MIMEType: "text/plain", Text: found.list()}}, nil
}

// mapNotFound turns a missing file into the protocol's "resource not found". The library
// (v1.2.1) makes every error of a handler an internal error. Its own error for a URI that
// matches nothing has the code that each revision of the protocol prescribes, and repeats the
// URI, which is therefore replaced by our message.
func (s *Server) mapNotFound(hooks *mcpserver.Hooks) {
	hooks.AddBeforeReadResource(func(ctx context.Context, _ any, request *mcpsdk.ReadResourceRequest) {
		id, ours := strings.CutPrefix(request.Params.URI, render.FileURI)
		if !ours {
			return
		}
		if _, err := s.opts.Files.Stat(ctx, id); err != nil && execution.AsError(err).Code == execution.NotFound {
			request.Params.URI = execution.AsError(err).Message + ": it has expired or never existed"
		}
	})
}

func (s *Server) readResource(ctx context.Context, request mcpsdk.ReadResourceRequest) ([]mcpsdk.ResourceContents, error) {
	uri := request.Params.URI
	file, err := s.opts.Files.Get(ctx, strings.TrimPrefix(uri, render.FileURI))
	if err != nil {
		return nil, s.resourceError(ctx, err)
	}
	defer func() { _ = file.Close() }() // it was only read
	contents, err := s.renderer.Resource(ctx, uri, file)
	if err != nil {
		return nil, s.resourceError(ctx, err)
	}
	return []mcpsdk.ResourceContents{contents}, nil
}

// resourceError returns what a client may know of an error, and logs what it may not.
func (s *Server) resourceError(ctx context.Context, err error) error {
	domain := execution.AsError(err)
	if domain.Code == execution.Internal {
		s.opts.Log.ErrorContext(ctx, "reading a resource failed", "error", err)
	}
	return errors.New(domain.Explain())
}

// fileURL returns the URL of a stored file, or "" if the client does not use HTTP.
func fileURL(ctx context.Context, id string) string {
	if url := transport.BaseURL(ctx); url != "" {
		return url + "/v1/files/" + id
	}
	return ""
}
