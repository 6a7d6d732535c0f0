package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

type requestIDKey struct{}

// requestID gives the identifier under which the log knows a request.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// observe gives a request its identifier, logs it, and keeps a panic from
// ending the server.
func observe(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		id := rand.Text()[:12]
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		seen := &recorder{ResponseWriter: w}
		ctx := r.Context()
		defer func() {
			if cause := recover(); cause != nil {
				if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
					panic(cause)
				}
				log.ErrorContext(ctx, "panic", "request", id, "cause", cause, "stack", string(debug.Stack()))
				if seen.status == 0 {
					writeDetail(seen, http.StatusInternalServerError, "internal error; the log of the server has more under request "+id)
				}
			}
			log.InfoContext(ctx, "request", "request", id, "method", execution.Clip(r.Method), "path", execution.Clip(r.URL.Path),
				"status", seen.status, "ms", time.Since(started).Milliseconds())
		}()
		next.ServeHTTP(seen, r)
	})
}

// recorder remembers an answer's status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(data []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(data)
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (w *recorder) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// FlushError serves [http.ResponseController], for which Flush would hide that
// the client is gone.
func (w *recorder) FlushError() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap serves [http.ResponseController].
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// boundBodies bounds the size of every body, whatever its route.
func boundBodies(opts Options, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, refusal := opts.MaxBodyBytes, bodyTooLarge(opts.MaxBodyBytes)
		switch {
		case r.URL.Path == filesPath:
			limit, refusal = opts.MaxFileBytes+formBytes, fileTooLarge(opts.MaxFileBytes)
		case writesSessionFile(r):
			limit, refusal = opts.Limits.WorkspaceBytes, fileTooLarge(opts.Limits.WorkspaceBytes)
		}
		if r.ContentLength > limit {
			w.Header().Set("Connection", "close")
			writeDetail(w, http.StatusRequestEntityTooLarge, refusal)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		next.ServeHTTP(w, r)
	})
}

// hurryStrangers bounds the time for the body of a request that is refused before
// anything is charged for it: the server reads some of what is left of it.
func hurryStrangers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangersTime)) // not for test recorders
		}
		next.ServeHTTP(w, r)
	})
}

// timeBodies bounds the time that a body may take to arrive, even if the request
// is refused: the server reads what is left of it.
func timeBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		within := readBodyTime
		if isFile(r) {
			within = transferTime
		}
		control := http.NewResponseController(w)
		if r.ContentLength != 0 {
			_ = control.SetReadDeadline(time.Now().Add(within)) // not for test recorders
		}
		// Without a body as well: the library sets a deadline before it reads one.
		r.Body = &timedBody{ReadCloser: r.Body, control: control}
		next.ServeHTTP(w, r)
	})
}

// errStalled says that a body has not arrived in its time.
var errStalled = errors.New("request body read timeout")

// timedBody lifts the read deadline when the body has arrived. The server's
// own ReadTimeout would not: it would end a program that runs for longer.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		_ = b.control.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w: %w", errStalled, err)
	}
	return n, err
}

// boundAnswers bounds how long a client may take to read its answer. The time
// runs from the first byte: how long a program runs is not its business.
func boundAnswers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&deadlineWriter{ResponseWriter: w}, r)
	})
}

type deadlineWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *deadlineWriter) begin() {
	if !w.begun {
		w.begun = true
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTime)) // not for test recorders
	}
}

func (w *deadlineWriter) WriteHeader(status int) {
	w.begin()
	w.ResponseWriter.WriteHeader(status)
}

func (w *deadlineWriter) Write(data []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(data)
}

// Unwrap serves [http.ResponseController].
func (w *deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
