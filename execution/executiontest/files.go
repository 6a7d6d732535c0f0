package executiontest

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Read reads inputs whole, as files that a [Program] may return.
func Read(ctx context.Context, inputs []execution.Input) ([]execution.File, error) {
	var files []execution.File
	for _, input := range inputs {
		content, err := read(ctx, input)
		if err != nil {
			return nil, err
		}
		files = append(files, execution.File{Path: input.Path, Size: int64(len(content)), Content: content})
	}
	return files, nil
}

func read(ctx context.Context, input execution.Input) ([]byte, error) {
	r, err := input.Open(ctx)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

// keepAll stores or returns a program's files, as the request asks.
func keepAll(ctx context.Context, req execution.Request, files []execution.File, result *execution.Result) {
	for _, file := range files {
		file.Size = int64(len(file.Content))
		if req.Keep != nil {
			id, err := req.Keep(ctx, file.Path, bytes.NewReader(file.Content))
			if err != nil {
				reason := "it could not be stored: " + execution.AsError(err).Message
				result.Skipped = append(result.Skipped, execution.SkippedFile{Path: file.Path, Reason: reason})
				continue
			}
			file.ID, file.Content = id, nil
		}
		result.Files = append(result.Files, file)
	}
}
