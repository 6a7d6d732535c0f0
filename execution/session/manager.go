// Package session manages sessions: sandboxes that a client keeps for a while. It
// bounds their number, runs the calls of each session one after the other, and finds
// sessions again that an earlier server has started. A session belongs to the owner
// of the request that created it ([execution.OwnerOf]); to other owners it does not
// exist.
//
// Its [Host] decides where sessions run and how to talk to them.
package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Defaults of a session's life.
const (
	DefaultTTL    = 15 * time.Minute
	DefaultMaxAge = 24 * time.Hour
)

const (
	// startTime bounds the start of a session.
	startTime = time.Minute
	// attachTime bounds the connection to a running session, and the end of one.
	attachTime = 15 * time.Second
	// lookTime bounds the check whether a session still runs that could not be
	// attached to.
	lookTime = 5 * time.Second
	// leaveTime is how long calls that are called off when the server closes may
	// take to end, and connections after them.
	leaveTime = 20 * time.Second
	// endGrace is how long a session may outlast its time: by then it has ended by
	// itself, or something keeps it from ending.
	endGrace = 10 * time.Second
	// maxWaiting is how many calls of one session may wait: they hold requests that
	// other clients could make.
	maxWaiting = 8
	// asksAtOnce is how many requests of one owner may ask the host at once which
	// sessions run. An engine takes some milliseconds, in which other requests wait.
	asksAtOnce = 2
)

// Host is where sessions run.
type Host interface {
	// Start starts a session, and waits until it takes calls.
	Start(ctx context.Context, spec execution.Spec) (execution.Session, error)
	// Attach connects to a running session. The error of an unknown one is an
	// [*execution.Error] with code [execution.NotFound].
	Attach(ctx context.Context, id string) (execution.Session, error)
	// Find returns a running session. The error of an unknown one is as for Attach.
	Find(ctx context.Context, id string) (execution.SessionInfo, error)
	// Owned lists the running sessions of an owner.
	Owned(ctx context.Context, owner execution.Owner) ([]execution.SessionInfo, error)
	// Count returns the number of running sessions, of an owner and of all, without
	// those of some ids.
	Count(ctx context.Context, owner execution.Owner, except []string) (own, all int, err error)
	// Announce records when a session ends, and its idle time, for every server.
	Announce(ctx context.Context, session execution.SessionInfo) error
	// End ends a session, if it runs, and returns when it is gone.
	End(ctx context.Context, id string) error
}

// Options configure a [Manager].
type Options struct {
	// Host runs the sessions.
	Host Host
	// Spec returns the kind of sandbox that new sessions get.
	Spec func(ctx context.Context) (execution.Spec, error)
	// Limits bound every call.
	Limits execution.Limits
	// Max bounds the number of sessions. It must be positive.
	Max int
	// MaxAge is how long a session may last, from its creation, however busy it is.
	// Zero means [DefaultMaxAge].
	MaxAge time.Duration
	// Handover moves sessions between servers. Nil means that this server has its sessions
	// alone.
	Handover Handover
	// LinkIdle is how long a connection to a session is kept without a call. Zero means as
	// long as the session.
	LinkIdle time.Duration
	// Log receives failures in the background. Nil discards them.
	Log *slog.Logger
}

// Manager manages the sessions of a server. It is safe for concurrent use.
type Manager struct {
	opts Options
	asks *execution.OwnerSemaphore // for questions to the host

	mu       sync.Mutex
	closing  bool
	starting map[string]execution.Owner // of sessions that are being started, by id
	known    map[string]*entry          // by id
	calls    int                        // under way
	idle     chan struct{}              // closed when closing and there are no calls
	watchers sync.WaitGroup

	lasting context.Context         //nolint:containedctx // ends when calls must
	stop    context.CancelCauseFunc // ends it
}

// New returns a Manager.
func New(opts Options) *Manager {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.MaxAge == 0 {
		opts.MaxAge = DefaultMaxAge
	}
	lasting, stop := context.WithCancelCause(context.Background())
	return &Manager{
		opts: opts, asks: execution.NewOwnerSemaphore(asksAtOnce), starting: make(map[string]execution.Owner), known: make(map[string]*entry),
		idle: make(chan struct{}), lasting: lasting, stop: stop,
	}
}

var errClosing = &execution.Error{Code: execution.Unavailable, Message: "the server is shutting down"}

func isNotFound(err error) bool {
	return err != nil && execution.AsError(err).Code == execution.NotFound
}
