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

// Files is what an [Exchange] needs of a [Store].
type Files interface {
	Put(ctx context.Context, name string, r io.Reader) (Info, error)
	Hold(ctx context.Context, id string) (*Held, error)
	Delete(ctx context.Context, id string) error
}

// Exchange is what one run takes from a store and leaves in it: its inputs stay
// as long as it lasts, and what it made stays only if somebody learns of it.
// Whoever makes one must end it. Its methods are for one goroutine at a time.
type Exchange struct {
	files     Files
	log       *slog.Logger
	held      []*Held
	kept      []string
	delivered bool
}

// NewExchange makes an Exchange with a store. log gets what goes wrong with the
// files that a run makes.
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

// Keep stores a file that the run made, as it comes in. It is an
// [execution.Keep].
func (e *Exchange) Keep(ctx context.Context, name string, content io.Reader) (string, error) {
	info, err := e.files.Put(ctx, path.Base(name), content)
	if err != nil {
		if ctx.Err() == nil {
			e.log.ErrorContext(ctx, "a result could not be stored", "error", err)
		}
		return "", err
	}
	e.kept = append(e.kept, info.ID)
	return info.ID, nil
}

// Deliver says that the client has the ids of what the run made.
func (e *Exchange) Deliver() { e.delivered = true }

// endTime bounds the deletion of what nobody will ask for. It expires too.
const endTime = time.Minute

// End lets the inputs go and, unless they were delivered, deletes what the run
// made. The run must be over.
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
			e.log.WarnContext(ctx, "a result that nobody will ask for could not be deleted", "file", id, "error", err)
		}
	}
}
