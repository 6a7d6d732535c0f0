package httpapi

import (
	"context"
	"encoding/base64"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// job is a client's request as the executor gets it, with what it takes from the
// file store and leaves there. Its exchange must be ended.
type job struct {
	execution.Request
	exchange *filestore.Exchange
	unknown  []string // the fields of the request that the API does not know
}

// newJob translates a body that matches its schema.
func (a *api) newJob(ctx context.Context, body *executeRequest) (*job, error) {
	j := &job{exchange: filestore.NewExchange(a.opts.Files, a.opts.Log.With("request", requestID(ctx))), unknown: body.unknown}
	j.Request = execution.Request{
		Code:        body.Code,
		Args:        body.Args,
		Env:         body.Env,
		Timeout:     milliseconds(body.TimeoutMS),
		Interactive: body.LastLineInteractive == nil || bool(*body.LastLineInteractive),
		Keep:        j.exchange.Keep,
	}
	if body.Stdin != nil {
		j.Stdin = *body.Stdin
	}
	for i, file := range body.Files {
		input, err := j.input(file, i)
		if err != nil {
			return nil, err
		}
		j.Files = append(j.Files, input)
	}
	return j, nil
}

// input translates a file.
func (j *job) input(file inputFile, index int) (execution.Input, error) {
	fault := func(field, kind, message string, input any) error {
		return unprocessable(newFault(kind, message, input, "body", "files", index, field))
	}
	switch {
	case file.FileID != nil && file.ContentBase64 != nil:
		return execution.Input{}, fault("content_base64", "value_error", "must not be given beside file_id", "...")
	case file.FileID != nil:
		return j.exchange.Input(file.Path, *file.FileID), nil
	case file.ContentBase64 == nil:
		return execution.Input{}, fault("file_id", "missing", "is required, or content_base64 instead", nil)
	}
	content, err := base64.StdEncoding.DecodeString(*file.ContentBase64)
	if err != nil {
		return execution.Input{}, fault("content_base64", "value_error", "must be standard base64: "+err.Error(), *file.ContentBase64)
	}
	return execution.Inline(file.Path, content), nil
}
