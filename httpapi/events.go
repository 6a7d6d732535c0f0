package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// eventWriter writes server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// newEventWriter returns a writer of events. Nothing is sent before begin.
func newEventWriter(w http.ResponseWriter) *eventWriter {
	return &eventWriter{w: w, control: http.NewResponseController(w)}
}

// begin sends the header.
func (e *eventWriter) begin() error {
	header := e.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Accel-Buffering", "no") // nginx would gather the events
	e.extend()
	e.w.WriteHeader(http.StatusOK)
	return e.control.Flush()
}

// event sends an event whose data is a value as JSON.
func (e *eventWriter) event(name string, data any) error {
	text, err := encodeEvent(name, data)
	if err != nil {
		return err
	}
	return e.write(text)
}

// encodeEvent returns an event as it is sent. JSON has no line breaks, so its data is
// one line.
func encodeEvent(name string, data any) ([]byte, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, text), nil
}

// ping sends a comment, which clients ignore.
func (e *eventWriter) ping() error { return e.write([]byte(": ping\n\n")) }

// write sends text at once. A client has as long for it as for a whole answer.
func (e *eventWriter) write(text []byte) error {
	e.extend()
	if _, err := e.w.Write(text); err != nil {
		return err
	}
	return e.control.Flush()
}

func (e *eventWriter) extend() {
	_ = e.control.SetWriteDeadline(time.Now().Add(writeTime)) // not for test recorders
}
