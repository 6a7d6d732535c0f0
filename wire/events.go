package wire

import "net/http"

// EventStream is the media type of server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
const EventStream = "text/event-stream"

// EventHeader sets the header of a response that is a stream of events.
func EventHeader(header http.Header) {
	header.Set("Content-Type", EventStream)
	header.Set("Cache-Control", "no-cache")
}

// Event encodes an event. The data must not contain line breaks: JSON has none.
func Event(name string, data []byte) []byte {
	event := make([]byte, 0, len("event: \ndata: \n\n")+len(name)+len(data))
	event = append(append(event, "event: "...), name...)
	event = append(append(event, "\ndata: "...), data...)
	return append(event, "\n\n"...)
}

// SendEvent writes an encoded event, or a comment, and sends it at once.
func SendEvent(w http.ResponseWriter, event []byte) error {
	if _, err := w.Write(event); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}
