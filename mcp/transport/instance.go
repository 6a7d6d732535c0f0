package transport

import (
	"net/http"
	"strings"
)

// Where clients' requests may reach several servers, the id of a protocol session names the one
// that began it, in front of its owner.

const instanceMark = "."

// instanceSuffix returns what follows the random part of an id.
func instanceSuffix(instance string) string {
	if instance == "" {
		return ""
	}
	return instanceMark + instance
}

// ServerOf returns the name of the server that began a request's protocol session, or "" if the
// request belongs to none, or the id names none.
func ServerOf(r *http.Request) string {
	var id string
	switch r.URL.Path {
	case StreamablePath:
		id = r.Header.Get(sessionIDHeader)
	case MessagePath:
		id = r.URL.Query().Get("sessionId")
	}
	id, own := strings.CutSuffix(id, ownerSuffix(r.Context()))
	if !own {
		return ""
	}
	_, instance, _ := strings.Cut(id, instanceMark)
	return instance
}
