// Package httpapi is the HTTP door: the routes of the code-interpreter API, the shapes
// of their requests and answers, and the middleware in front of all doors.
//
// Shapes, names, defaults, status codes and messages are a contract with existing
// clients (docs/http.md). Our additions are optional in requests and extra in answers.
//
// A request passes observe, the guard, the router, and the middleware of its route's
// policy (routes.go); then its handler decodes it.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Executor runs programs.
type Executor interface {
	Execute(ctx context.Context, req execution.Request) (*execution.Result, error)
}

// Options configure the API.
type Options struct {
	// Executor runs the programs.
	Executor Executor
	// Files stores uploads and results.
	Files Files
	// Sessions manages sandboxes that persist between calls.
	Sessions Sessions
	// Health returns why no sandbox is available, or nil.
	Health func(ctx context.Context) error
	// Backend returns the name of the backend ("docker", "local", "kubernetes", or "" until it is
	// decided). Nil means that it is unknown.
	Backend func() string
	// Isolation returns the isolation of runs ("run", "container", or "" until it is
	// known) and why it is not stronger. Nil means that it is unknown.
	Isolation func() (isolation, reason string)
	// Version is the version of the server.
	Version string
	// MaxBodyBytes bounds a request's body, MaxFileBytes that of an upload.
	MaxBodyBytes, MaxFileBytes int64
	// Limits are those of the Executor.
	Limits execution.Limits
	// InFlightBytes bounds the memory of all requests and connections. It must be
	// enough for ten bodies of MaxBodyBytes. Zero means no bound.
	InFlightBytes int64
	// AllowedHosts are the names, in lower case and without ports, that a Host may have
	// in addition to names that cannot be registered in the public DNS.
	AllowedHosts []string
	// AllowedOrigins are the origins whose pages may use the API besides the server's
	// own, in lower case, such as https://example.com:8443.
	AllowedOrigins []string
	// Auth identifies the owner of a request. Nil means no authentication: all requests
	// have one owner.
	Auth Authenticator
	// Issuer is the OAuth issuer whose tokens Auth accepts. Empty means none.
	Issuer string
	// PublicURL is the URL of the server for clients, such as https://example.com. Empty
	// means that of each request.
	PublicURL string
	// Peers are the servers that share sessions with this one. Nil means that there are none.
	Peers *Peers
	// Log receives one line for each request, and details that users must not see.
	Log *slog.Logger
	// Mount adds the routes of other doors, by pattern, behind the same middleware.
	Mount map[string]http.Handler
}

// Deadlines of a connection. None of them bounds the run of a program.
const (
	readHeaderTime  = 10 * time.Second
	readBodyTime    = 2 * time.Minute
	refusedBodyTime = 5 * time.Second // for the body of a request whose owner is not known yet
	writeTime       = 2 * time.Minute // from the first byte of an answer
	idleTime        = 2 * time.Minute
	maxHeaderBytes  = 16 << 10
)

// NewServer returns the HTTP server. The caller provides the listener.
func NewServer(opts Options) *http.Server {
	server := &http.Server{
		Handler:           NewHandler(opts),
		ReadHeaderTimeout: readHeaderTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
		// The library's handler of OPTIONS * would run before the guard.
		DisableGeneralOptionsHandler: true,
	}
	(&waitingConns{most: int(opts.InFlightBytes / smallPart / connectionBytes)}).watch(server)
	return server
}

// NewHandler returns the handler of the API.
func NewHandler(opts Options) http.Handler {
	a := newAPI(opts)
	return observe(opts.Log, boundRefusedBody(a.guard(a.refusePaths(a.mux))))
}

// behind puts a handler behind the middleware of its route's policy.
func (a *api) behind(p policy, handler http.Handler) http.Handler {
	if !p.ownDeadlines {
		handler = boundAnswer(handler)
	}
	handler = requireJSON(p, timeBody(p, a.forward(p, boundBody(p, a.chargeMemory(p, handler)))))
	return a.drain(p.body, strangerDrain, a.authenticate(p, a.drain(p.body, p.body.within, handler)))
}

// refusePaths answers 404 for paths that are not in their shortest form, and for the *
// of OPTIONS. The mux would redirect to the shortest form, in HTML.
func (a *api) refusePaths(next http.Handler) http.Handler {
	unknown := a.behind(a.policies["/"], http.HandlerFunc(notFound))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := r.URL.EscapedPath()
		shortest := path.Clean(given)
		if strings.HasSuffix(given, "/") && shortest != "/" {
			shortest += "/"
		}
		if given != shortest || given == "*" {
			unknown.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
