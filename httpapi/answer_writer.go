package httpapi

import "net/http"

// answerWriter calls begin with the status of an answer, once, before the answer
// begins. All that the middleware does to answers stands on it.
//
// It is our own: felixge/httpsnoop (v1.1.0) passes our tests in its place, but takes
// as many lines and adds 2 MB to the binary.
type answerWriter struct {
	http.ResponseWriter

	begin func(status int)
	begun bool
}

func beforeAnswer(w http.ResponseWriter, begin func(status int)) http.ResponseWriter {
	return &answerWriter{ResponseWriter: w, begin: begin}
}

func (w *answerWriter) once(status int) {
	if !w.begun {
		w.begun = true
		w.begin(status)
	}
}

// WriteHeader implements [http.ResponseWriter].
func (w *answerWriter) WriteHeader(status int) {
	w.once(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *answerWriter) Write(data []byte) (int, error) {
	w.once(http.StatusOK)
	return w.ResponseWriter.Write(data)
}

// Flush serves handlers that ask for a [http.Flusher] by its type.
func (w *answerWriter) Flush() { _ = w.FlushError() }

// FlushError serves [http.ResponseController], for which Flush would hide that the
// client is gone.
func (w *answerWriter) FlushError() error {
	w.once(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap serves [http.ResponseController].
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
