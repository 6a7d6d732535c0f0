package runner

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// ReadFile reads a file of the workspace, whatever its size.
func (c *sessionConn) ReadFile(ctx context.Context, req execution.ReadRequest, limits execution.Limits) (*execution.Result, error) {
	limits.ResultFiles, limits.ResultFileBytes, limits.ResultBytes = 1, limits.WorkspaceBytes, limits.WorkspaceBytes
	return c.call(ctx, task{
		operation: readFile, code: req.Path, timeout: fileTimeout(limits), keep: req.Keep, entry: req.Entry, limits: limits,
	})
}

// WriteFiles writes files to the workspace.
func (c *sessionConn) WriteFiles(ctx context.Context, req execution.WriteRequest, limits execution.Limits) error {
	_, err := c.call(ctx, task{operation: writeFiles, timeout: fileTimeout(limits), files: req.Files, more: req.More, limits: limits})
	return err
}

// entryBytes is what an entry of a list takes beside its path, here and in an answer.
const entryBytes = 200

// ListFiles lists entries of the workspace.
func (c *sessionConn) ListFiles(
	ctx context.Context, req execution.ListRequest, listing *execution.Listing, limits execution.Limits,
) (*execution.Result, error) {
	var refused error
	account := execution.AccountOf(ctx)
	limits.ResultFiles = req.Most
	result, err := c.call(ctx, task{operation: listFiles, code: req.Path, timeout: fileTimeout(limits), limits: limits, entry: func(e execution.Entry) {
		if refused == nil {
			refused = account.Take(int64(entryBytes + 4*len(e.Path)))
		}
		if refused == nil {
			listing.Entries = append(listing.Entries, e)
		}
	}})
	if err == nil {
		err = refused
	}
	return result, err
}

// PackFolder reads a folder of the workspace with all that it contains.
func (c *sessionConn) PackFolder(ctx context.Context, req execution.PackRequest, limits execution.Limits) (*execution.Result, error) {
	limits.ResultFiles, limits.ResultFileBytes, limits.ResultBytes = execution.MaxEntries, limits.WorkspaceBytes, limits.WorkspaceBytes
	return c.call(ctx, task{
		operation: packFolder, code: req.Path, timeout: fileTimeout(limits), keep: req.Keep, entry: req.Entry, limits: limits,
	})
}

// DeleteFile deletes an entry of the workspace.
func (c *sessionConn) DeleteFile(ctx context.Context, path string, limits execution.Limits) error {
	_, err := c.call(ctx, task{operation: deleteFile, code: path, timeout: fileTimeout(limits), limits: limits})
	return err
}

// RenameFile renames an entry of the workspace.
func (c *sessionConn) RenameFile(ctx context.Context, req execution.RenameRequest, limits execution.Limits) error {
	_, err := c.call(ctx, task{operation: renameFile, code: req.Path + "\x00" + req.Target, timeout: fileTimeout(limits), limits: limits})
	return err
}

// takeEntry takes in what a supervisor reports of an entry: its kind, its size, when it
// was changed in milliseconds since 1970, whether it is executable, and its path.
func (r *report) takeEntry(payload string) error {
	if r.entries++; r.entries > r.limits.ResultFiles {
		return fmt.Errorf("%w: more than %d entries", errFrame, r.limits.ResultFiles)
	}
	parts := strings.SplitN(payload, " ", 5)
	if len(parts) != 5 {
		return fmt.Errorf("%w: the entry %.100q", errFrame, payload)
	}
	size, sizeErr := strconv.ParseUint(parts[1], 10, 63)
	modified, timeErr := strconv.ParseUint(parts[2], 10, 48)
	kind := execution.EntryKind(parts[0])
	switch kind {
	case execution.KindFile, execution.KindFolder, execution.KindLink, execution.KindOther:
	default:
		kind = ""
	}
	if fault := execution.PathFault(parts[4]); kind == "" || sizeErr != nil || timeErr != nil || fault != "" || printable(parts[4]) != parts[4] {
		return fmt.Errorf("%w: the entry %.100q", errFrame, payload)
	}
	if r.entry != nil {
		r.entry(execution.Entry{
			Path: parts[4], Kind: kind, Size: int64(size), Modified: time.UnixMilli(int64(modified)), Executable: parts[3] == "1",
		})
	}
	return nil
}
