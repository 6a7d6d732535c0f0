package filestore

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Files is the part of a [Store] that an [Exchange] uses.
type Files interface {
	Put(ctx context.Context, name string, r io.Reader) (Info, error)
	Hold(ctx context.Context, id string) (*Held, error)
	Delete(ctx context.Context, id string) error
}

// Exchange moves the files of one run between a store and the run. The inputs stay
// readable until the exchange ends. The results are deleted at its end unless they were
// delivered. Its creator must end it. Its methods must not be called concurrently.
type Exchange struct {
	files     Files
	log       *slog.Logger
	held      []*Held
	kept      []string
	delivered bool
}

// NewExchange returns an Exchange with a store. log receives the failures to store and
// to delete results.
func NewExchange(files Files, log *slog.Logger) *Exchange {
	return &Exchange{files: files, log: log}
}

// Input returns an input of a stored file. Once found, the file stays until the
// exchange ends. The error of an unknown one is an [*execution.Error] with code
// [execution.NotFound].
func (e *Exchange) Input(path, id string) execution.Input {
	return execution.Input{Path: path, Find: func(ctx context.Context) (int64, execution.Source, error) {
		held, err := e.files.Hold(ctx, id)
		switch {
		case err != nil && execution.AsError(err).Code == execution.NotFound:
			return 0, nil, &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf(
				"File with ID '%s' not found for path '%s'.", execution.Clip(id), execution.Clip(path))}
		case err != nil:
			return 0, nil, err
		}
		e.held = append(e.held, held)
		return held.Size, held, nil
	}}
}

// Keep stores a file that the run created, while it is read from the sandbox. It is an
// [execution.Keep].
func (e *Exchange) Keep(ctx context.Context, name string, content io.Reader) (string, error) {
	info, err := e.files.Put(ctx, path.Base(name), content)
	if err != nil {
		if ctx.Err() == nil {
			e.log.ErrorContext(ctx, "cannot store a result", "error", err)
		}
		return "", err
	}
	e.kept = append(e.kept, info.ID)
	return info.ID, nil
}

// Deliver marks the results as delivered: the client knows their ids.
func (e *Exchange) Deliver() { e.delivered = true }

// endTime bounds the deletion of undelivered results. Those that are left expire.
const endTime = time.Minute

// End releases the inputs and deletes the results unless they were delivered. The run
// must be over.
func (e *Exchange) End(ctx context.Context) {
	for _, held := range e.held {
		held.Release()
	}
	if e.delivered {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	for _, id := range e.kept {
		if err := e.files.Delete(ctx, id); err != nil {
			e.log.WarnContext(ctx, "cannot delete an undelivered result", "file", id, "error", err)
		}
	}
}
