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

// requestID returns the identifier of a request, which the log contains.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// observe assigns an identifier to each request, logs the request, and recovers from
// panics.
func observe(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		id := rand.Text()[:12]
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		status := 0
		w = beforeAnswer(w, func(first int) { status = first })
		ctx := r.Context()
		defer func() {
			if cause := recover(); cause != nil {
				if cause == http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
					panic(cause)
				}
				log.ErrorContext(ctx, "panic", "request", id, "cause", cause, "stack", string(debug.Stack()))
				if status == 0 {
					writeDetail(w, http.StatusInternalServerError, "internal error; the log of the server has more under request "+id)
				}
			}
			log.InfoContext(ctx, "request", "request", id, "method", execution.Clip(r.Method), "path", execution.Clip(r.URL.Path),
				"status", status, "ms", time.Since(started).Milliseconds())
		}()
		next.ServeHTTP(w, r)
	})
}

// boundBody bounds the size of a body.
func boundBody(p policy, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > p.body.limit {
			w.Header().Set("Connection", "close")
			writeDetail(w, http.StatusRequestEntityTooLarge, p.body.refusal)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, p.body.limit)
		next.ServeHTTP(w, r)
	})
}

// boundRefusedBody bounds the time for the body of a request that is refused before it is
// authenticated: the server reads a part of the rest of the body.
func boundRefusedBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedBodyTime)) // not for test recorders
		}
		next.ServeHTTP(w, r)
	})
}

// timeBody bounds the time in which a body must arrive, even if the request is refused:
// the server reads the rest of the body.
func timeBody(p policy, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.ContentLength != 0 {
			_ = control.SetReadDeadline(time.Now().Add(p.body.within)) // not for test recorders
		}
		// Also without a body, because the library sets a deadline before it reads.
		r.Body = &timedBody{ReadCloser: r.Body, control: control}
		next.ServeHTTP(w, r)
	})
}

// errBroken is the error for a body that ends before its Content-Length, or whose chunks are
// not valid.
var errBroken = errors.New("the request body is cut short or its chunks are not valid")

// errStalled is the error for a body that has not arrived in time.
var errStalled = errors.New("request body read timeout")

// timedBody removes the read deadline when the body has arrived. The server's ReadTimeout
// does not: it would end a program that runs longer.
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
	case err != nil:
		err = fmt.Errorf("%w: %w", errBroken, err)
	}
	return n, err
}

// boundAnswer bounds how long a client may take to read its answer. The time starts
// with the first byte, so that it does not bound how long a program runs.
func boundAnswer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(beforeAnswer(w, func(int) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime)) // not for test recorders
		}), r)
	})
}
