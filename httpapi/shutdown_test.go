package httpapi_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// Browsers and connection pools connect ahead of requests. Shutdown closes connections
// without a request at once.
func TestShutdownClosesUnusedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := httpapi.NewServer(options(func(context.Context, execution.Request) (*execution.Result, error) {
			return &execution.Result{}, nil
		}))
		p := newServerOf(t, server)
		unused := p.dial()
		synctest.Wait()
		started := time.Now()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(started); took > time.Second {
			t.Errorf("the shutdown took %v", took)
		}
		if _, err := unused.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is still open")
		}
	})
}
