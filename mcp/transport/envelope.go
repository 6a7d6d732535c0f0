package transport

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// envelope is what is to be known of a message before the library reads it. It
// is decoded as the library (v1.2.1) does, which takes names in any case and
// with escapes, and the last of several.
type envelope struct {
	Method string          `json:"method"`
	ID     json.RawMessage `json:"id"`
}

const (
	// maxRepeated bounds what answers and notifications repeat of a request, in
	// bytes: its id, which must be repeated exactly, its progress token, and names
	// and URIs, which the library (v1.2.1) repeats in errors.
	maxRepeated = 1000
	// maxMeta bounds a request's _meta, which the library decodes several times.
	maxMeta = 64 << 10
)

// measure is a value of which the size and the kind matter alone.
type measure struct {
	bytes  int
	scalar bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (m *measure) UnmarshalJSON(text []byte) error {
	*m = measure{len(text), text[0] != '{' && text[0] != '['}
	return nil
}

// fault returns what is wrong with a request that would have its answer repeat too
// much, or "".
func (e envelope) fault(message []byte) string {
	if len(e.ID) > maxRepeated {
		return tooMuch("id", len(e.ID), maxRepeated)
	}
	if len(e.Method) > maxRepeated {
		return tooMuch("method", len(e.Method), maxRepeated)
	}
	var request struct {
		Params map[string]measure `json:"params"`
	}
	var meta struct {
		Params struct {
			Meta map[string]measure `json:"_meta"`
		} `json:"params"`
	}
	_ = json.Unmarshal(message, &request) // what has another shape is the library's to refuse
	for name, value := range request.Params {
		if value.scalar && value.bytes > maxRepeated {
			return tooMuch("params."+execution.Clip(name), value.bytes, maxRepeated)
		}
		if strings.EqualFold(name, "_meta") {
			if value.bytes > maxMeta {
				return tooMuch("params._meta", value.bytes, maxMeta)
			}
			_ = json.Unmarshal(message, &meta) // as above
		}
	}
	for name, value := range meta.Params.Meta {
		if value.bytes > maxRepeated && strings.EqualFold(name, "progressToken") {
			return tooMuch("params._meta.progressToken", value.bytes, maxRepeated)
		}
	}
	return ""
}

func tooMuch(what string, bytes, most int) string {
	return fmt.Sprintf("%s has %d bytes: must have at most %d", what, bytes, most)
}

// refusal returns the answer to a request with such a fault, or nil. Nobody waits
// for an answer to anything else, and nothing of it is repeated.
func (e envelope) refusal(message []byte) mcpsdk.JSONRPCMessage {
	if !e.hasID() {
		return nil
	}
	fault := e.fault(message)
	if fault == "" {
		return nil
	}
	var id any
	if len(e.ID) <= maxRepeated {
		id, _ = e.id()
	}
	return errorAnswer(id, mcpsdk.INVALID_REQUEST, fault)
}

// open reads a message's envelope. Of what is no message it is empty.
func open(message []byte) (e envelope) {
	if json.Unmarshal(message, &e) != nil {
		return envelope{}
	}
	return e
}

func (e envelope) hasID() bool { return len(e.ID) > 0 && string(e.ID) != "null" }

// id gives a message's id, if it has one that is valid: a string or a number.
func (e envelope) id() (id any, ok bool) {
	if !e.hasID() || e.ID[0] == '{' || e.ID[0] == '[' { // which may be large
		return nil, false
	}
	if json.Unmarshal(e.ID, &id) != nil {
		return nil, false
	}
	_, isBool := id.(bool)
	return id, !isBool
}

// isNotification says whether nobody waits for an answer.
func (e envelope) isNotification() bool { return e.Method != "" && !e.hasID() }

// isBatch says whether what a client says is a list of messages.
func isBatch(said []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(said), []byte("[")) }

// isModern says whether the library (v1.2.1) takes a message for one of the
// revisions that have no protocol sessions.
func isModern(header http.Header, message []byte) bool {
	var declared struct {
		Params struct {
			Meta *mcpsdk.Meta `json:"_meta"`
		} `json:"params"`
	}
	if mcpsdk.IsModernProtocol(header.Get(mcpsdk.HeaderProtocolVersion)) {
		return true
	}
	return json.Unmarshal(message, &declared) == nil && mcpsdk.IsModernProtocol(declared.Params.Meta.ProtocolVersion())
}
