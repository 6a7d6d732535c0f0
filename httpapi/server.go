// Package httpapi is the HTTP door: the routes of the code-interpreter API,
// their request and response shapes, and the middleware in front of them.
//
// Shapes, names, defaults, status codes and messages are a contract with
// clients that exist (docs/http.md); what is ours is optional in requests and
// extra in answers.
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
	// Files keeps what clients upload.
	Files Files
	// Sessions are sandboxes that clients keep.
	Sessions Sessions
	// Health says why no sandbox can be had, or nil.
	Health func(ctx context.Context) error
	// Backend names where sandboxes come from ("docker", "local", or "" as long as
	// that is not decided). Nil means that it is not known.
	Backend func() string
	// Isolation says how far runs are apart ("run", "container", or "" as long
	// as that is not known), and why not further. Nil means that it is not known.
	Isolation func() (isolation, reason string)
	// Version is the server's.
	Version string
	// MaxBodyBytes bounds a request's body, MaxFileBytes that of an upload.
	MaxBodyBytes, MaxFileBytes int64
	// Limits are those of the Executor: a request is checked against them before
	// its stored files are looked for.
	Limits execution.Limits
	// InFlightBytes bounds the memory that requests and connections take at once.
	// It must allow for ten bodies of MaxBodyBytes. Zero bounds nothing.
	InFlightBytes int64
	// AllowedHosts are names, in lower case and without ports, by which clients
	// may call the server besides those that nobody can own in the public DNS.
	AllowedHosts []string
	// AllowedOrigins are those whose pages may use the API besides the server's
	// own, in lower case, as https://example.com:8443.
	AllowedOrigins []string
	// Auth says who sends a request. Nil asks nobody: everybody is one owner.
	Auth Authenticator
	// Issuer is the OAuth issuer whose tokens Auth takes. Empty is none.
	Issuer string
	// PublicURL is where clients reach the server, as https://example.com. Empty
	// is what each request says.
	PublicURL string
	// Log gets one line a request, and what users must not see.
	Log *slog.Logger
	// Mount adds other doors, by pattern, behind the same middleware.
	Mount map[string]http.Handler
}

// Deadlines of a connection. None bounds a program's run.
const (
	readHeaderTime = 10 * time.Second
	readBodyTime   = 2 * time.Minute
	strangersTime  = 5 * time.Second // for the body of a request that is refused before its owner is known
	writeTime      = 2 * time.Minute // from the first byte of an answer
	idleTime       = 2 * time.Minute
	maxHeaderBytes = 16 << 10
)

// NewServer makes the HTTP server; the caller gives it a listener.
func NewServer(opts Options) *http.Server {
	server := &http.Server{
		Handler:           NewHandler(opts),
		ReadHeaderTimeout: readHeaderTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
		// The library's own, for OPTIONS *, would come before the guard.
		DisableGeneralOptionsHandler: true,
	}
	(&waitingConns{most: int(opts.InFlightBytes / smallPart / connectionBytes)}).follow(server)
	return server
}

// NewHandler makes the API's handler.
func NewHandler(opts Options) http.Handler {
	a := newAPI(opts)
	return observe(opts.Log, hurryStrangers(a.guard(a.refusePaths(a.mux))))
}

// behind puts a handler behind the middleware of its route's policy.
func (a *api) behind(p policy, handler http.Handler) http.Handler {
	if !p.ownDeadlines {
		handler = boundAnswer(handler)
	}
	return a.authenticate(p, requireJSON(p, timeBody(p, boundBody(p, a.chargeMemory(p, handler)))))
}

// refusePaths answers 404 for paths that are not in their shortest form, and for the *
// of OPTIONS. The mux would redirect to the shortest form, in HTML.
func (a *api) refusePaths(next http.Handler) http.Handler {
	unknown := a.behind(policy{}, http.HandlerFunc(notFound))
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
