// Package session keeps track of sessions: sandboxes that a client keeps for a
// while. It bounds their number, takes each one's calls one after the other,
// and finds sessions again that an earlier server has started. A session belongs
// to the owner of the request that made it ([execution.OwnerOf]), and to others
// it does not exist.
//
// Where they run, and how they are spoken to, it leaves to its [Host].
package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Bounds of a session's life.
const (
	DefaultTTL = 15 * time.Minute
	MaxTTL     = 24 * time.Hour
)

const (
	// startTime bounds the start of a session.
	startTime = time.Minute
	// attachTime bounds the way to a session that is there.
	attachTime = 15 * time.Second
	// lookTime bounds the question whether a session that could not be attached to
	// is there at all.
	lookTime = 5 * time.Second
	// leaveTime is how long calls that are called off when the server closes may
	// take to end, and connections after them.
	leaveTime = 20 * time.Second
	// endGrace is how long after its time a session that this server knows may be
	// there: by then it has ended by itself, or something keeps it from it.
	endGrace = 10 * time.Second
	// maxWaiting is how many calls of one session may wait for their turn: they
	// hold requests that other clients could make.
	maxWaiting = 8
)

// Host is where sessions run.
type Host interface {
	// Start starts a session, and waits until it takes calls.
	Start(ctx context.Context, spec execution.Spec) (execution.Session, error)
	// Attach connects to a session that runs. The error of an unknown one is an
	// [*execution.Error] with code [execution.NotFound].
	Attach(ctx context.Context, id string) (execution.Session, error)
	// Sessions lists those that run.
	Sessions(ctx context.Context) ([]execution.SessionInfo, error)
	// End ends a session, if it runs, and returns when it is gone.
	End(ctx context.Context, id string) error
}

// Options configure a [Manager].
type Options struct {
	// Host has the sessions.
	Host Host
	// Spec gives the kind of sandbox that new sessions get.
	Spec func(ctx context.Context) (execution.Spec, error)
	// Limits bound every call.
	Limits execution.Limits
	// Max is how many sessions there may be. It must be positive.
	Max int
	// Log gets what goes wrong in the background. Nil means nowhere.
	Log *slog.Logger
}

// Manager is the sessions of a server. It is safe for concurrent use.
type Manager struct {
	opts Options
	asks *execution.OwnerSemaphore // to ask the host what runs

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

// New makes a Manager.
func New(opts Options) *Manager {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	lasting, stop := context.WithCancelCause(context.Background())
	return &Manager{
		opts: opts, asks: execution.NewOwnerSemaphore(asksAtOnce), starting: make(map[string]execution.Owner), known: make(map[string]*entry),
		idle: make(chan struct{}), lasting: lasting, stop: stop,
	}
}

var errClosing = &execution.Error{Code: execution.Unavailable, Message: "the server is shutting down"}

// notFound is the error for an id that stands for no session.
func notFound(id string) error {
	const most = 100
	if len(id) > most {
		id = strings.ToValidUTF8(id[:most], "") + "..."
	}
	return &execution.Error{Code: execution.NotFound, Message: fmt.Sprintf("Session '%s' not found", execution.Clip(id))}
}

func isNotFound(err error) bool {
	return err != nil && execution.AsError(err).Code == execution.NotFound
}

// newID makes an identifier that nobody guesses: 128 random bits.
func newID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// isID says whether a text has the form of an identifier of ours. No other is
// looked for.
func isID(text string) bool {
	return len(text) == 32 && strings.Trim(text, "0123456789abcdef") == ""
}
