package httpapi

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/vivarium-sandbox/vivarium/wire"
)

// eventWriter writes server-sent events and extends the deadline of each write.
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
	wire.EventHeader(e.w.Header())
	e.w.Header().Set("X-Accel-Buffering", "no") // nginx would gather the events
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

// encodeEvent returns an event whose data is a value as JSON, as it is sent.
func encodeEvent(name string, data any) ([]byte, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	return wire.Event(name, text), nil
}

// ping sends a comment, which clients ignore.
func (e *eventWriter) ping() error { return e.write([]byte(": ping\n\n")) }

// write sends text at once. A client has as long for it as for a whole answer.
func (e *eventWriter) write(text []byte) error {
	e.extend()
	return wire.SendEvent(e.w, text)
}

func (e *eventWriter) extend() {
	_ = e.control.SetWriteDeadline(time.Now().Add(writeTime)) // not for test recorders
}
