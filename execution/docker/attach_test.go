package docker_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

// An engine that hangs while attaching does not hold Start up beyond its context.
func TestStartHeedsItsContextWhileAttaching(t *testing.T) {
	e := newEngine(t)
	e.handle(create, say(http.StatusCreated, map[string]any{"Id": containerID}))
	over := make(chan struct{})
	defer close(over)
	e.handle("POST /containers/{id}/attach", func(http.ResponseWriter, *http.Request) { <-over })
	e.handle("DELETE /containers/{id}", quiet)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	returned := make(chan error, 1)
	go func() {
		_, err := e.backend(docker.Options{}).Start(ctx, execution.Spec{})
		returned <- err
	}()
	select {
	case err := <-returned:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits")
	}
}
