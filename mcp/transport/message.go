package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// maxRepeated bounds what answers and notifications repeat of a request, in bytes: the
	// id, which must be repeated exactly, the progress token, and the names and URIs that
	// the library (v1.2.1) repeats in errors.
	maxRepeated = 1000
	// maxMeta bounds a request's _meta, which the library decodes several times.
	maxMeta = 64 << 10
	// maxBatch bounds the messages of a batch, which share one request's part of the server.
	maxBatch   = 100
	batchFault = "a batch must be a list of 1 to 100 messages"
)

// message is a message of a client, or a batch, with what must be known of it before the
// library reads it. It is decoded once, as the library decodes it: names match in any case and
// with escapes, and the last of several wins.
type message struct {
	raw    json.RawMessage
	valid  bool // as JSON
	method string
	id     json.RawMessage
	params map[string]measure
}

// parse decodes a message. Without a method and an id, it is not a message of the protocol.
func parse(raw []byte) message {
	var decoded struct {
		Method json.RawMessage    `json:"method"`
		ID     json.RawMessage    `json:"id"`
		Params map[string]measure `json:"params"`
	}
	err := json.Unmarshal(raw, &decoded)
	_, otherShape := errors.AsType[*json.UnmarshalTypeError](err) // a batch, or params that the library rejects
	m := message{raw: raw, valid: err == nil || otherShape}
	if len(decoded.Method) > 0 && json.Unmarshal(decoded.Method, &m.method) != nil {
		return m // the method is not a string
	}
	m.id, m.params = decoded.ID, decoded.Params
	return m
}

// parseID decodes nothing but the id of a message, which may have any number of values.
func parseID(raw []byte) message {
	var decoded struct {
		ID json.RawMessage `json:"id"`
	}
	_ = json.Unmarshal(raw, &decoded) // then it has no id
	return message{id: decoded.ID}
}

// measure is the size of a value and whether it is a scalar. It keeps the text of small
// objects, since _meta is one.
type measure struct {
	bytes  int
	scalar bool
	object []byte
}

// UnmarshalJSON implements [json.Unmarshaler].
func (m *measure) UnmarshalJSON(text []byte) error {
	*m = measure{bytes: len(text), scalar: text[0] != '{' && text[0] != '['}
	if text[0] == '{' && len(text) <= maxMeta {
		m.object = bytes.Clone(text)
	}
	return nil
}

func (m message) hasID() bool { return len(m.id) > 0 && string(m.id) != "null" }

// decodeID returns a message's id. It is valid if it is a string or a number.
func (m message) decodeID() (id any, valid bool) {
	if !m.hasID() || m.id[0] == '{' || m.id[0] == '[' { // which may be large
		return nil, false
	}
	if json.Unmarshal(m.id, &id) != nil {
		return nil, false
	}
	_, isBool := id.(bool)
	return id, !isBool
}

// repeatableID returns the id for an error, or nil if it is too long to be repeated.
func (m message) repeatableID() any {
	if len(m.id) > maxRepeated {
		return nil
	}
	id, _ := m.decodeID()
	return id
}

// isNotification reports whether the client expects no answer.
func (m message) isNotification() bool { return m.method != "" && !m.hasID() }

// isBatch reports whether a client sent a list of messages.
func (m message) isBatch() bool { return bytes.HasPrefix(bytes.TrimSpace(m.raw), []byte("[")) }

// batch returns the messages of a batch, or false if their number is not allowed.
func (m message) batch() (messages []message, ok bool) {
	var list []json.RawMessage
	if json.Unmarshal(m.raw, &list) != nil || len(list) == 0 || len(list) > maxBatch {
		return nil, false
	}
	for _, raw := range list {
		messages = append(messages, parse(raw))
	}
	return messages, true
}

// isModern reports whether the library (v1.2.1) treats a message as one of the revisions that
// have no protocol sessions. It decodes the message exactly as the library does.
func (m message) isModern(header http.Header) bool {
	if mcpsdk.IsModernProtocol(header.Get(mcpsdk.HeaderProtocolVersion)) {
		return true
	}
	var declared struct {
		Params struct {
			Meta *mcpsdk.Meta `json:"_meta"`
		} `json:"params"`
	}
	return json.Unmarshal(m.raw, &declared) == nil && mcpsdk.IsModernProtocol(declared.Params.Meta.ProtocolVersion())
}

// refusal returns the answer to a request whose answer would repeat too much, or nil. Other
// messages have no answer, and nothing of them is repeated.
func (m message) refusal() mcpsdk.JSONRPCMessage {
	if !m.hasID() {
		return nil
	}
	if fault := m.fault(); fault != "" {
		return errorAnswer(m.repeatableID(), mcpsdk.INVALID_REQUEST, fault)
	}
	return nil
}

// fault names the part of a request that is too long to be repeated, or returns "".
func (m message) fault() string {
	if len(m.id) > maxRepeated {
		return tooLong("id", len(m.id), maxRepeated)
	}
	if len(m.method) > maxRepeated {
		return tooLong("method", len(m.method), maxRepeated)
	}
	for name, value := range m.params {
		if value.scalar && value.bytes > maxRepeated && !m.isArguments(name) {
			return tooLong("params."+execution.Clip(name), value.bytes, maxRepeated)
		}
		if strings.EqualFold(name, "_meta") {
			if fault := metaFault(value); fault != "" {
				return fault
			}
		}
	}
	return ""
}

// isArguments reports whether a parameter has the arguments of a tool, which some clients send as a
// string. The library repeats nothing of them.
func (m message) isArguments(parameter string) bool {
	return parameter == "arguments" && m.method == string(mcpsdk.MethodToolsCall)
}

func metaFault(meta measure) string {
	if meta.bytes > maxMeta {
		return tooLong("params._meta", meta.bytes, maxMeta)
	}
	var members map[string]measure
	_ = json.Unmarshal(meta.object, &members) // nil if it is not an object, which the library rejects
	for name, value := range members {
		if value.bytes > maxRepeated && strings.EqualFold(name, "progressToken") {
			return tooLong("params._meta.progressToken", value.bytes, maxRepeated)
		}
	}
	return ""
}

func tooLong(what string, bytes, most int) string {
	return fmt.Sprintf("%s has %d bytes: must have at most %d", what, bytes, most)
}

func errorAnswer(id any, code int, text string) mcpsdk.JSONRPCMessage {
	return mcpsdk.NewJSONRPCError(mcpsdk.NewRequestId(id), code, text, nil)
}
