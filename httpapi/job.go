package httpapi

import (
	"context"
	"encoding/base64"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// job is a client's request as the executor is asked for it, with what it takes
// from the file store and leaves there. Whoever made it must end it.
type job struct {
	execution.Request
	exchange *filestore.Exchange
}

// newJob translates a body that has been validated as far as its schema goes.
// What is wrong with it is told before stored files are looked for.
func (a *api) newJob(ctx context.Context, body *executeRequest) (*job, error) {
	j := &job{exchange: filestore.NewExchange(a.opts.Files, a.opts.Log.With("request", requestID(ctx)))}
	j.Request = execution.Request{
		Code:        body.Code,
		Timeout:     milliseconds(body.TimeoutMS),
		Interactive: body.LastLineInteractive == nil || *body.LastLineInteractive,
		Keep:        j.exchange.Keep,
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
	if _, err := a.opts.Limits.Validate(j.Request); err != nil {
		return nil, err
	}
	if err := j.hold(ctx, body.Files); err != nil {
		j.exchange.End(ctx)
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
		return fault("content_base64", "value_error", "must be standard base64: "+err.Error(), *f.ContentBase64)
	}
	return execution.Inline(f.Path, content), nil
}

// hold holds the stored files among the inputs.
func (j *job) hold(ctx context.Context, files []inputFile) (err error) {
	for i, file := range files {
		if file.FileID == nil {
			continue
		}
		if j.Files[i], err = j.exchange.Input(ctx, file.Path, *file.FileID); err != nil {
			return err
		}
	}
	return nil
}
