package session

import (
	"context"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// ListFiles lists entries of a session's workspace.
func (m *Manager) ListFiles(ctx context.Context, id string, req execution.ListRequest) (execution.Listing, error) {
	req, err := req.Validate()
	if err != nil {
		return execution.Listing{}, err
	}
	var listing execution.Listing
	result, err := m.run(ctx, id, time.Now(), m.fileTime(), func(ctx context.Context, conn execution.Session) (*execution.Result, error) {
		listing = execution.Listing{}
		return conn.ListFiles(ctx, req, &listing, m.opts.Limits)
	})
	if err == nil && result.End.Message != "" {
		err = &execution.Error{Code: execution.Unavailable, Message: "the files could not be listed: " + result.End.Message}
	}
	if err != nil {
		return execution.Listing{}, err
	}
	listing.Skipped, listing.Session = result.Skipped, result.Session
	return listing, nil
}

// PackFolder reads a folder of a session's workspace with all that it contains. What
// cannot be read is left out.
func (m *Manager) PackFolder(ctx context.Context, id string, req execution.PackRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	result, err := m.run(ctx, id, time.Now(), m.fileTime(), func(ctx context.Context, conn execution.Session) (*execution.Result, error) {
		return conn.PackFolder(ctx, req, m.opts.Limits)
	})
	if err == nil && result.End.Message != "" {
		err = &execution.Error{Code: execution.Unavailable, Message: "the folder could not be read: " + result.End.Message}
	}
	return err
}

// DeleteFile deletes an entry of a session's workspace, a folder with what it contains.
func (m *Manager) DeleteFile(ctx context.Context, id, path string) error {
	if err := (execution.ReadRequest{Path: path}).Validate(); err != nil {
		return err
	}
	return m.call(ctx, id, callTerms{timeout: m.fileTime()}, func(ctx context.Context, e *entry) error {
		return e.conn.DeleteFile(ctx, path, m.opts.Limits)
	})
}

// RenameFile renames an entry of a session's workspace.
func (m *Manager) RenameFile(ctx context.Context, id string, req execution.RenameRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	return m.call(ctx, id, callTerms{timeout: m.fileTime()}, func(ctx context.Context, e *entry) error {
		return e.conn.RenameFile(ctx, req, m.opts.Limits)
	})
}
