package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

type healthOutput struct {
	Body health
}

type health struct {
	Status          string `json:"status" enum:"ok,error"`
	Message         string `json:"message" doc:"ok, or why no sandbox is available"`
	Version         string `json:"version" doc:"the version of the server"`
	Backend         string `json:"backend,omitempty" enum:"docker,local,kubernetes" doc:"docker: sandboxes are containers of an engine; local: the server creates them itself, from Linux namespaces; kubernetes: they are pods of a cluster; absent until it is decided"`
	Isolation       string `json:"isolation,omitempty" enum:"run,container" doc:"run: a sandbox serves many runs, each in a fresh inner one; container: one run each; absent until it is known"`
	IsolationReason string `json:"isolation_reason,omitempty" doc:"why a sandbox cannot serve many runs here"`
}

func (a *api) registerHealth() {
	register(a, policy{public: true}, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/health", Tags: []string{tagService},
		Summary:     "Report whether sandboxes are available",
		Description: "Always returns 200; status reports the state of the server.",
		Errors:      []int{http.StatusInternalServerError},
		Metadata: illustrate(illustration{answers: map[int]answer{http.StatusOK: {"The state of the server", []sample{
			{"ok", "Sandboxes are available", health{Status: "ok", Message: "ok", Version: "1.2.3", Backend: "docker", Isolation: "run"}},
			{"trouble", "No sandbox is available", health{Status: "error", Message: "no sandbox could be started", Version: "1.2.3"}},
		}}}}),
	}, a.health)
}

func (a *api) health(ctx context.Context, _ *struct{}) (*healthOutput, error) {
	opts := a.opts
	out := &healthOutput{Body: health{Status: "ok", Message: "ok", Version: opts.Version}}
	if opts.Backend != nil {
		out.Body.Backend = opts.Backend()
	}
	if opts.Isolation != nil {
		out.Body.Isolation, out.Body.IsolationReason = opts.Isolation()
	}
	if err := opts.Health(ctx); err != nil {
		out.Body.Status, out.Body.Message = "error", execution.AsError(err).Explain()
	}
	return out, nil
}
