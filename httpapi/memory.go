package httpapi

import (
	"cmp"
	"io"
	"net/http"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// What requests are charged for beside what [wire] says, in bytes.
const (
	// headerBytes is what one header takes beside its text.
	headerBytes = 160
	// transferBytes is what a file's way takes, in either direction: the buffers of
	// both ends.
	transferBytes = 4 * chunkBytes
)

// memory is the server's memory for requests. It is divided once and for all, so
// that each part has room whatever the others do.
type memory struct {
	requests  *execution.Budget // for what runs or makes something
	asks      *execution.Budget // for what only asks
	streams   *execution.Budget // for what lasts as long as its client
	strangers execution.Owner   // who bears no key, where one can: "" is everybody
}

// smallPart is how many times each of the other parts is smaller than the whole: a
// fourth part is for connections.
const smallPart = 8

func newMemory(opts Options) memory {
	if opts.InFlightBytes == 0 {
		return memory{}
	}
	small := opts.InFlightBytes / smallPart
	m := memory{
		requests: execution.NewBudget(opts.InFlightBytes - 3*small), asks: execution.NewBudget(small), streams: execution.NewBudget(small),
	}
	if opts.Auth != nil {
		m.strangers = "strangers" // those get no more than one key
	}
	return m
}

// owner returns whose share of the memory a request takes.
func (m memory) owner(r *http.Request) execution.Owner {
	return cmp.Or(execution.OwnerOf(r.Context()), m.strangers)
}

// chargeMemory charges each request for the memory that it takes, before its body is
// read, and refuses it where there is none. What only asks goes on, health for one,
// and what makes room can be deleted.
func (a *api) chargeMemory(p policy, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		account := a.memory.budgetFor(p, r).Open(a.memory.owner(r))
		defer account.Close()
		if p.opensStream(r) {
			r.Body = http.MaxBytesReader(w, r.Body, maxStreamBody)
		}
		if err := account.Take(cost(p, r)); err != nil {
			a.memory.refuse(p, w, r, execution.AsError(err))
			return
		}
		if r.ContentLength < 0 && !p.body.isFile {
			r.Body = wire.Charged(r.Body, account, wire.BodyTimes)
		}
		if p.needsJSON(r) {
			r.Body = wire.Body(r.Body, account)
		}
		next.ServeHTTP(w, r.WithContext(execution.WithAccount(r.Context(), account)))
	})
}

// budgetFor returns the budget that a request is charged to.
func (m memory) budgetFor(p policy, r *http.Request) *execution.Budget {
	switch {
	case p.opensStream(r):
		return m.streams
	case onlyAsks(r) && !p.longAnswer:
		return m.asks
	}
	return m.requests
}

// refuse answers a request of which the body has not been read. It then reads the
// body and keeps nothing of it: a client that is still sending hears no answer.
func (m memory) refuse(p policy, w http.ResponseWriter, r *http.Request, why *execution.Error) {
	text := why.Message
	if p.opensStream(r) {
		text = "too many streams are open; close one, or try again later"
	}
	w.Header().Set("Retry-After", retryAfter)
	account := m.asks.Open(m.owner(r))
	defer account.Close()
	reads := r.Header.Get("Expect") == "" && account.Take(wire.RequestBytes) == nil
	if !reads {
		w.Header().Set("Connection", "close")
	}
	writeDetail(w, statusOf(why.Code), text)
	if reads && r.ContentLength != 0 {
		_ = http.NewResponseController(w).Flush() // not for test recorders
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

// cost is what a request takes that has come as far as its header.
func cost(p policy, r *http.Request) int64 {
	bytes := int64(wire.RequestBytes)
	for name, values := range r.Header {
		for _, value := range values {
			bytes += int64(headerBytes + len(name) + len(value))
		}
	}
	switch {
	case p.body.isFile, p.longAnswer:
		return bytes + transferBytes
	case p.opensStream(r):
		return bytes + wire.BodyTimes*min(max(0, r.ContentLength), maxStreamBody)
	}
	return bytes + wire.BodyTimes*max(0, r.ContentLength)
}

// onlyAsks says whether a request runs nothing and makes nothing.
func onlyAsks(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete:
		return true
	}
	return false
}
