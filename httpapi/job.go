package httpapi

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"path"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// job is a client's request as the executor is asked for it, with what it holds
// and makes in the file store. Whoever made it must end it.
type job struct {
	execution.Request
	opts      Options
	held      []*filestore.Held // inputs, which must stay during the run
	kept      []string          // ids of what the run made
	delivered bool              // the client has those ids
}

// newJob translates a body that has been validated as far as its schema goes.
// What is wrong with it is told before stored files are looked for.
func newJob(ctx context.Context, opts Options, body *executeRequest) (*job, error) {
	j := &job{opts: opts}
	j.Request = execution.Request{
		Code:        body.Code,
		Timeout:     milliseconds(body.TimeoutMS),
		Interactive: body.LastLineInteractive == nil || *body.LastLineInteractive,
		Keep:        j.keep,
	}
	if body.Stdin != nil {
		j.Stdin = *body.Stdin
	}
	for i, file := range body.Files {
		input, err := file.input(i)
		if err != nil {
			return nil, err
		}
		j.Files = append(j.Files, input)
	}
	if _, err := opts.Limits.Validate(j.Request); err != nil {
		return nil, err
	}
	if err := j.hold(ctx, body.Files); err != nil {
		j.end(ctx)
		return nil, err
	}
	return j, nil
}

// input translates a file. Of a stored one, the size and the source follow when
// it is held.
func (f inputFile) input(index int) (execution.Input, error) {
	fault := func(field, kind, message string, input any) (execution.Input, error) {
		return execution.Input{}, &execution.Error{Code: execution.Invalid, Fields: []execution.FieldError{{
			Path: []any{"files", index, field}, Type: kind, Message: message, Input: input,
		}}}
	}
	switch {
	case f.FileID != nil && f.ContentBase64 != nil:
		return fault("content_base64", "value_error", "must not be given beside file_id", "...")
	case f.FileID != nil:
		return execution.Input{Path: f.Path}, nil
	case f.ContentBase64 == nil:
		return fault("file_id", "missing", "is required, or content_base64 instead", nil)
	}
	content, err := base64.StdEncoding.DecodeString(*f.ContentBase64)
	if err != nil {
		return fault("content_base64", "value_error", "must be standard base64: "+err.Error(), clip(*f.ContentBase64))
	}
	return execution.Inline(f.Path, content), nil
}

// hold holds the stored files among the inputs.
func (j *job) hold(ctx context.Context, files []inputFile) error {
	for i, file := range files {
		if file.FileID == nil {
			continue
		}
		held, err := j.opts.Files.Hold(ctx, *file.FileID)
		switch {
		case err != nil && execution.AsError(err).Code == execution.NotFound:
			return &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf(
				"File with ID '%s' not found for path '%s'.", clip(*file.FileID), clip(file.Path))}
		case err != nil:
			return err
		}
		j.held = append(j.held, held)
		j.Files[i].Size, j.Files[i].Source = held.Size, held
	}
	return nil
}

// keep stores a file that the run made, as it comes in.
func (j *job) keep(ctx context.Context, name string, content io.Reader) (string, error) {
	info, err := j.opts.Files.Put(ctx, path.Base(name), content)
	if err != nil {
		if ctx.Err() == nil {
			j.opts.Log.ErrorContext(ctx, "a result could not be stored", "request", requestID(ctx), "error", err)
		}
		return "", err
	}
	j.kept = append(j.kept, info.ID)
	return info.ID, nil
}

// end lets the inputs go and, where the client has not got the result, deletes
// what the run made: nobody would know of it. The run must be over.
func (j *job) end(ctx context.Context) {
	for _, held := range j.held {
		held.Release()
	}
	if j.delivered {
		return
	}
	for _, id := range j.kept {
		if err := j.opts.Files.Delete(context.WithoutCancel(ctx), id); err != nil {
			j.opts.Log.WarnContext(ctx, "a result that nobody will ask for could not be deleted", "file", id, "error", err)
		}
	}
}
