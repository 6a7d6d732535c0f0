package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

const listen = "subscriptions/listen"

// open opens a stream. It returns when the stream has ended or was refused.
func open(ctx context.Context, h http.Handler, route, key, told string) answer {
	method, path, _ := strings.Cut(route, " ")
	r := authorized(method, path, `{}`, "Bearer "+key).WithContext(ctx)
	r.Header.Set("Mcp-Method", told)
	return serve(h, r)
}

// Open streams of notifications do not use the memory for runs. Their own memory is
// bounded, in all and for each owner.
func TestEndlessStreams(t *testing.T) {
	for _, route := range []string{"POST /mcp", "GET /mcp", "GET /sse"} {
		t.Run(route, func(t *testing.T) {
			var served []execution.Owner
			opened := make(chan struct{})
			h := locked(&served, func(opts *httpapi.Options) {
				endless := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					opened <- struct{}{}
					<-r.Context().Done()
				})
				opts.Mount = map[string]http.Handler{"/mcp": endless, "/sse": endless}
				opts.InFlightBytes = 512 << 20
			})
			ctx, leave := context.WithCancel(t.Context())
			refused := make(chan answer)
			var clients sync.WaitGroup
			start := func(key string) (a answer, ok bool) {
				clients.Go(func() {
					if a := open(ctx, h, route, key, listen); a.status != http.StatusOK {
						refused <- a
					}
				})
				select {
				case <-opened:
					return answer{}, true
				case a := <-refused:
					return a, false
				}
			}
			annas := 0
			for annas < 1000 {
				a, ok := start("anna's key")
				if !ok {
					a.want(t, http.StatusTooManyRequests, `{"detail": "too many streams are open; close one, or try again later"}`)
					break
				}
				annas++
			}
			if annas < 600 || annas > 700 {
				t.Errorf("one owner may have %d", annas)
			}
			if a, ok := start("ben's key"); !ok {
				t.Errorf("another may have none: %d %s", a.status, a.body)
			}
			if a := serve(h, authorized(http.MethodPost, "/v1/execute", `{"code": ""}`, "Bearer anna's key")); a.status != http.StatusOK {
				t.Errorf("a run beside them: %d %s", a.status, a.body)
			}
			leave()
			clients.Wait()
			ctx, leave = context.WithCancel(t.Context())
			if a, ok := start("anna's key"); !ok {
				t.Errorf("when they have ended: %d %s", a.status, a.body)
			}
			leave()
			clients.Wait()
		})
	}
}

// The body of a request that opens a stream, or pretends to, is bounded.
func TestBodiesOfStreamsAreSmall(t *testing.T) {
	for told, whole := range map[string]bool{listen: false, "tools/call": true} {
		opts := options(validates)
		var read int64
		var err error
		opts.Mount = map[string]http.Handler{"/mcp": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			read, err = io.Copy(io.Discard, r.Body)
		})}
		r := request(http.MethodPost, "/mcp", bodyOf(maxBody))
		r.Header.Set("Mcp-Method", told)
		serve(httpapi.NewHandler(opts), r)
		var tooLarge *http.MaxBytesError
		if whole && read != maxBody || !whole && (read > 100_000 || !errors.As(err, &tooLarge)) {
			t.Errorf("%s: %d bytes were read, then %v", told, read, err)
		}
	}
}
