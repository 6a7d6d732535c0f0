package httpapi

import (
	"cmp"
	"net/http"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// The charges for requests besides those of [wire], in bytes.
const (
	// headerBytes is the memory of one header besides its text.
	headerBytes = 160
	// transferBytes is the memory of the transfer of a file in either direction: the
	// buffers of both ends.
	transferBytes = 4 * chunkBytes
)

// memory is the server's memory for requests. Its division is fixed, so that no part can
// use the room of the others.
type memory struct {
	requests  *execution.Budget // of requests that run or create something
	reads     *execution.Budget // of requests that only read or delete
	streams   *execution.Budget // of streams that last as long as their client
	strangers execution.Owner   // the owner of requests without a key
}

// smallPart is the share of reads, of streams and of connections: one part in so many of
// the whole.
const smallPart = 8

func newMemory(opts Options) memory {
	if opts.InFlightBytes == 0 {
		return memory{}
	}
	small := opts.InFlightBytes / smallPart
	m := memory{
		requests: execution.NewBudget(opts.InFlightBytes - 3*small), reads: execution.NewBudget(small), streams: execution.NewBudget(small),
	}
	if opts.Auth != nil {
		m.strangers = "strangers" // together they get as much as one key
	}
	return m
}

// owner returns the owner whose share of the memory a request uses.
func (m memory) owner(r *http.Request) execution.Owner {
	return cmp.Or(execution.OwnerOf(r.Context()), m.strangers)
}

// chargeMemory charges each request for its memory before its body is read, and refuses
// it if there is not enough. Requests that only read or delete are charged to a part of
// their own, so that /health answers and files can be deleted.
func (a *api) chargeMemory(p policy, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		account := a.memory.budgetFor(p, r).Open(a.memory.owner(r))
		defer account.Close()
		if p.opensStream(r) {
			r.Body = http.MaxBytesReader(w, r.Body, maxStreamBody)
		}
		if err := account.Take(cost(p, r)); err != nil {
			refuseMemory(p, w, r, execution.AsError(err))
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
	case onlyReads(r) && !p.longAnswer:
		return m.reads
	}
	return m.requests
}

// refuseMemory answers a request whose body has not been read.
func refuseMemory(p policy, w http.ResponseWriter, r *http.Request, why *execution.Error) {
	text := why.Message
	if p.opensStream(r) {
		text = "too many streams are open; close one, or try again later"
	}
	w.Header().Set("Retry-After", retryAfter)
	writeDetail(w, statusOf(why.Code), text)
}

// cost returns the charge for a request when its header has arrived.
func cost(p policy, r *http.Request) int64 {
	bytes := headerCost(r)
	switch {
	case p.body.isFile, p.longAnswer:
		return bytes + transferBytes
	case p.opensStream(r):
		return bytes + wire.BodyTimes*min(max(0, r.ContentLength), maxStreamBody)
	}
	return bytes + wire.BodyTimes*max(0, r.ContentLength)
}

// headerCost returns the charge for a request without its body.
func headerCost(r *http.Request) int64 {
	bytes := int64(wire.RequestBytes)
	for name, values := range r.Header {
		for _, value := range values {
			bytes += int64(headerBytes + len(name) + len(value))
		}
	}
	return bytes
}

// onlyReads reports whether a request runs and creates nothing.
func onlyReads(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete:
		return true
	}
	return false
}
