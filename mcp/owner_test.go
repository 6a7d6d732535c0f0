package mcp_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// newOwned serves the transports for the owner in X-Owner, and records for which owners programs
// run.
func newOwned(t *testing.T) (server *httptest.Server, ran func() []execution.Owner) {
	t.Helper()
	var mu sync.Mutex
	var owners []execution.Owner
	handlers, endStreams := mcp.New(options(func(ctx context.Context, _ execution.Request) (*execution.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		owners = append(owners, execution.OwnerOf(ctx))
		return printed("42"), nil
	})).Handlers()
	mux := http.NewServeMux()
	for path, handler := range handlers {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			handler.ServeHTTP(w, r.WithContext(execution.WithOwner(r.Context(), execution.Owner(r.Header.Get("X-Owner")))))
		})
	}
	server = httptest.NewServer(mux)
	t.Cleanup(func() {
		endStreams()
		server.Close()
	})
	return server, func() []execution.Owner {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(owners)
	}
}

// as is a client of an owner's.
func as(server *httptest.Server, owner string) *http.Client {
	return &http.Client{Transport: withOwner{server.Client().Transport, owner}}
}

type withOwner struct {
	http.RoundTripper

	owner string
}

func (w withOwner) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Owner", w.owner)
	return w.RoundTripper.RoundTrip(r)
}

// Programs run for who makes the call, and a session is unknown to others.
func TestOwnersOfStreamableSessions(t *testing.T) {
	server, ran := newOwned(t)
	anna, ben, nobody := as(server, "anna"), as(server, "ben"), as(server, "")
	url := server.URL + transport.StreamablePath
	_, session, _ := post(t, anna, url, "", hello)
	if status, _, text := post(t, anna, url, session, callCode); status != http.StatusOK {
		t.Errorf("her own: %d %s", status, text)
	}
	for name, client := range map[string]*http.Client{"another": ben, "nobody": nobody} {
		if status, _, text := post(t, client, url, session, callCode); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Mcp-Session-Id", session)
		resp, err := ben.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s of another's: %s", method, resp.Status)
		}
	}
	if owners := ran(); !slices.Equal(owners, []execution.Owner{"anna"}) {
		t.Errorf("programs ran for %q", owners)
	}
}

func TestOwnersOfSSESessions(t *testing.T) {
	server, ran := newOwned(t)
	anna, ben := as(server, "anna"), as(server, "ben")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+transport.SSEPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := anna.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Body.Close() }()
	in := events{bufio.NewScanner(stream.Body)}
	_, endpoint := in.next(t)
	if status, _, text := post(t, ben, server.URL+endpoint, "", callCode); status != http.StatusNotFound {
		t.Errorf("another: %d %s", status, text)
	}
	for _, body := range []string{hello, callCode} {
		if status, _, text := post(t, anna, server.URL+endpoint, "", body); status != http.StatusAccepted {
			t.Errorf("her own: %d %s", status, text)
		}
		if name, data := in.next(t); name != "message" || !strings.Contains(data, "result") {
			t.Errorf("%s %s", name, data)
		}
	}
	if owners := ran(); !slices.Equal(owners, []execution.Owner{"anna"}) {
		t.Errorf("programs ran for %q", owners)
	}
}
