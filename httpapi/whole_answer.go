package httpapi

import (
	"net/http"
	"strconv"
)

// wholeBytes is the size of the longest body that is held back.
const wholeBytes = 2 << 10

// wholeAnswer holds back a short answer until end, which sends it with its length. The
// library would send it when the handler has returned, after the request's line in the log,
// which takes 25 us and more if the log is slow. To flush it before would send it in chunks.
type wholeAnswer struct {
	http.ResponseWriter

	status int // zero until the answer begins
	held   []byte
	sent   bool // nothing is held back any more
}

// WriteHeader implements [http.ResponseWriter].
func (w *wholeAnswer) WriteHeader(status int) {
	switch {
	case status < http.StatusOK:
		w.ResponseWriter.WriteHeader(status) // another follows
	case w.status == 0:
		w.status = status
	}
}

// Write implements [http.ResponseWriter].
func (w *wholeAnswer) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !w.sent && len(w.held)+len(data) <= wholeBytes {
		w.held = append(w.held, data...)
		return len(data), nil
	}
	if err := w.send(); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(data)
}

// send passes on what is held back.
func (w *wholeAnswer) send() (err error) {
	if w.sent {
		return nil
	}
	w.sent = true
	w.ResponseWriter.WriteHeader(w.status)
	if len(w.held) > 0 {
		_, err = w.ResponseWriter.Write(w.held)
	}
	return err
}

// end sends the answer, if it has begun.
func (w *wholeAnswer) end() {
	switch {
	case w.status == 0:
		return
	case !w.sent && len(w.held) > 0:
		w.Header().Set("Content-Length", strconv.Itoa(len(w.held)))
		_ = w.FlushError() // the client may be gone
	default:
		_ = w.send() // the server sends the rest
	}
}

// FlushError serves [http.ResponseController].
func (w *wholeAnswer) FlushError() error {
	w.WriteHeader(http.StatusOK)
	if err := w.send(); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (w *wholeAnswer) Flush() { _ = w.FlushError() }

// Unwrap serves [http.ResponseController].
func (w *wholeAnswer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
