package mcp

import (
	"bytes"
	"encoding/json"
	"net/http"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// envelope is what is to be known of a message before the library reads it. It
// is decoded as the library (v1.2.1) does, which takes names in any case and
// with escapes, and the last of several.
type envelope struct {
	Method string          `json:"method"`
	ID     json.RawMessage `json:"id"`
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
