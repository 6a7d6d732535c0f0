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
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	asks *execution.Turns // to ask the host what runs

	mu       sync.Mutex
	closing  bool
	starting map[string]execution.Owner // of sessions that are being started, by id
	known    map[string]*held           // by id
	calls    int                        // under way
	idle     chan struct{}              // closed when closing and there are no calls
	watchers sync.WaitGroup

	lasting context.Context         //nolint:containedctx // ends when calls must
	stop    context.CancelCauseFunc // ends it
}

// held is a session that this server knows.
type held struct {
	info execution.SessionInfo
	ours bool          // this manager has started it
	turn chan struct{} // holds one token: whoever has it may call

	ending atomic.Bool // it is being ended before its time

	end     *time.Timer // ends it some time after it should have ended by itself
	waiting int         // calls that wait for the turn; with the manager's lock

	// link is nil while there is no connection. Whoever has the turn may read it,
	// and change it with the manager's lock; with that, anybody may read it.
	link execution.Session
}

// New makes a Manager.
func New(opts Options) *Manager {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	lasting, stop := context.WithCancelCause(context.Background())
	return &Manager{
		opts: opts, asks: execution.NewTurns(asksAtOnce), starting: make(map[string]execution.Owner), known: make(map[string]*held),
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
	return execution.SessionNotFound(id)
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

// enter counts a call, unless the manager closes. The context that it gives ends
// with the caller's, or when Close has waited long enough.
func (m *Manager) enter(ctx context.Context) (_ context.Context, leave func(), _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return nil, nil, errClosing
	}
	m.calls++
	ctx, cancel := context.WithCancelCause(ctx)
	forget := context.AfterFunc(m.lasting, func() { cancel(context.Cause(m.lasting)) })
	return ctx, func() {
		forget()
		cancel(nil)
		m.leave()
	}, nil
}

func (m *Manager) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls--
	m.closeIdleLocked()
}

// closeIdleLocked tells Close that the last call has ended. It needs m.mu.
func (m *Manager) closeIdleLocked() {
	if m.closing && m.calls == 0 {
		close(m.idle)
	}
}

// Create starts a session that lives for ttl, with files in its workspace. Zero
// means [DefaultTTL].
func (m *Manager) Create(ctx context.Context, ttl time.Duration, files []execution.Input) (execution.SessionInfo, error) {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	request, err := m.opts.Limits.ValidateCall(execution.WriteFiles, execution.Request{Files: files})
	if err != nil {
		return execution.SessionInfo{}, err
	}
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return execution.SessionInfo{}, err
	}
	defer leave()
	id := newID()
	if err := m.reserve(ctx, id); err != nil {
		return execution.SessionInfo{}, err
	}
	defer m.unreserve(id)
	info, link, err := m.start(ctx, id, ttl)
	if err != nil {
		return execution.SessionInfo{}, asUnavailable(ctx, err)
	}
	if len(files) > 0 {
		_, err = link.Call(ctx, execution.WriteFiles, request, m.opts.Limits)
	}
	if err != nil || ctx.Err() != nil || !m.adopt(info, link) { //nolint:contextcheck // its end has nothing to do with this call
		link.Detach() // nobody would know of it
		return execution.SessionInfo{}, errors.Join(unstaged(ctx, err), m.end(ctx, id))
	}
	return info, nil
}

// reserve makes room for a session. One that is being started may run already,
// and one that was when the host was asked may run by now: each counts once.
func (m *Manager) reserve(ctx context.Context, id string) error {
	m.mu.Lock()
	all := maps.Clone(m.starting)
	m.mu.Unlock()
	running, err := m.opts.Host.Sessions(ctx)
	if err != nil {
		return err
	}
	for _, s := range running {
		all[s.ID] = s.Owner
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(all, m.starting)
	owner, own := execution.OwnerOf(ctx), 0
	for _, other := range all {
		if other == owner {
			own++
		}
	}
	switch {
	case len(all) >= m.opts.Max && owner == "":
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"there are %d sessions, as many as there may be (MAX_SESSIONS); end one, or wait until one expires", len(all))}
	case !execution.HasRoom(owner, int64(own), int64(len(all)), int64(m.opts.Max), 1):
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"you have %d sessions, as many as you may at the moment (MAX_SESSIONS); end one, or wait until one expires", own)}
	}
	m.starting[id] = owner
	return nil
}

func (m *Manager) unreserve(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.starting, id)
}

func (m *Manager) start(ctx context.Context, id string, ttl time.Duration) (execution.SessionInfo, execution.Session, error) {
	spec, err := m.opts.Spec(ctx)
	if err != nil {
		return execution.SessionInfo{}, nil, err
	}
	spec.Isolation = execution.IsolationSession
	spec.Session = execution.SessionInfo{ID: id, Owner: execution.OwnerOf(ctx), Expires: time.Now().Add(ttl).Truncate(time.Millisecond)}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	link, err := m.opts.Host.Start(ctx, spec)
	return spec.Session, link, err
}

// asUnavailable is the error of a session that could not be started.
func asUnavailable(ctx context.Context, err error) error {
	if _, known := errors.AsType[*execution.Error](err); known {
		return err
	}
	if ctx.Err() != nil {
		return left(ctx)
	}
	return &execution.Error{Code: execution.Unavailable, Message: "no session could be started; try again", Err: err}
}

// unstaged is the error of a session that did not take its files or, where err is
// nil, for which nobody waits by now.
func unstaged(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil || err == nil:
		return left(ctx)
	case errors.Is(err, execution.ErrNotStarted):
		return asUnavailable(ctx, err)
	}
	return execution.AsError(err)
}

// end ends a session, whether or not its caller still waits.
func (m *Manager) end(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachTime)
	defer cancel()
	return m.opts.Host.End(ctx, id)
}

// adopt makes a session known, unless connections have been given up by now.
func (m *Manager) adopt(info execution.SessionInfo, link execution.Session) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lasting.Err() != nil {
		return false
	}
	h := m.knowLocked(info)
	h.ours, h.link = true, link
	m.watchLocked(h, link)
	return true
}

// knowLocked makes a session known until it should be gone, and sees to it that
// it is. It needs m.mu.
func (m *Manager) knowLocked(info execution.SessionInfo) *held {
	h := &held{info: info, turn: make(chan struct{}, 1)}
	h.end = time.AfterFunc(time.Until(info.Expires)+endGrace, func() {
		m.forget(h)
		if err := m.end(context.Background(), info.ID); err != nil {
			m.opts.Log.Error("a session that is over could not be ended", "error", err)
		}
	})
	m.known[info.ID] = h
	return h
}

// watchLocked gives a connection up when it has ended. It needs m.mu.
func (m *Manager) watchLocked(h *held, link execution.Session) {
	m.watchers.Go(func() {
		<-link.Done()
		link.Detach()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.known[h.info.ID] == h && h.over() {
			m.dropLocked(h)
		}
	})
}

// dropLocked makes a session unknown. It needs m.mu.
func (m *Manager) dropLocked(h *held) {
	h.end.Stop()
	delete(m.known, h.info.ID)
}

func (h *held) over() bool { return h.ending.Load() || !time.Now().Before(h.info.Expires) }

// find gives a session of the request's owner that is known, or that the host
// knows. For another's the host is asked as for an unknown one: the time that
// takes, and its faults, would tell them apart.
func (m *Manager) find(ctx context.Context, id string) (*held, error) {
	if !isID(id) {
		return nil, notFound(id)
	}
	if h := m.get(id); h != nil && h.info.Owner == execution.OwnerOf(ctx) {
		if h.over() {
			return nil, notFound(id)
		}
		return h, nil
	}
	running, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(running, func(s execution.SessionInfo) bool { return s.ID == id })
	if i < 0 {
		return nil, notFound(id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.known[id]; h != nil {
		return h, nil // another call was faster
	}
	return m.knowLocked(running[i]), nil //nolint:contextcheck // its end has nothing to do with this call
}

func (m *Manager) get(id string) *held {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id]
}

// forget forgets a session that is gone.
func (m *Manager) forget(h *held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.link != nil {
		h.link.Detach()
	}
	if m.known[h.info.ID] == h {
		m.dropLocked(h)
	}
}

// List lists the sessions of the request's owner that run, those of other servers
// on the same host among them, the one that expires first before the others.
func (m *Manager) List(ctx context.Context) ([]execution.SessionInfo, error) {
	running, err := m.ask(ctx)
	if err != nil {
		return nil, err
	}
	now, owner := time.Now(), execution.OwnerOf(ctx)
	running = slices.DeleteFunc(running, func(s execution.SessionInfo) bool {
		return s.Owner != owner || !now.Before(s.Expires)
	})
	slices.SortFunc(running, func(a, b execution.SessionInfo) int { return a.Expires.Compare(b.Expires) })
	return running, nil
}

// asksAtOnce is how many requests of one owner may ask the host at once what runs,
// which takes an engine some milliseconds in which others wait for it.
const asksAtOnce = 2

// ask asks the host what runs, when it is the request's turn.
func (m *Manager) ask(ctx context.Context) ([]execution.SessionInfo, error) {
	leave, err := m.asks.Take(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return m.opts.Host.Sessions(ctx)
}

// Delete ends a session, with what runs in it, and returns when it is gone.
func (m *Manager) Delete(ctx context.Context, id string) error {
	h, err := m.find(ctx, id)
	if isID(id) && err != nil && isNotFound(err) {
		return errors.Join(err, m.endOverdue(ctx, id))
	}
	if err != nil {
		return err
	}
	h.ending.Store(true) // calls must neither wait for a dying sandbox nor say that it was lost
	if err := m.end(ctx, id); err != nil {
		h.ending.Store(false)
		return err
	}
	m.forget(h)
	return nil
}

// EndOurs ends the sessions that this manager has started: nobody will come back
// for them. No call may be under way, and none may come.
func (m *Manager) EndOurs(ctx context.Context) error {
	m.mu.Lock()
	var ours []string
	for id, h := range m.known {
		if h.ours {
			ours = append(ours, id)
		}
	}
	m.mu.Unlock()
	faults := make([]error, len(ours))
	var ends sync.WaitGroup
	for i, id := range ours {
		ends.Go(func() {
			if err := m.Delete(ctx, id); !isNotFound(err) {
				faults[i] = err
			}
		})
	}
	ends.Wait()
	return errors.Join(faults...)
}

// endOverdue ends a session of the request's owner that is over and still there.
func (m *Manager) endOverdue(ctx context.Context, id string) error {
	running, err := m.ask(ctx)
	owner := execution.OwnerOf(ctx)
	if err != nil || !slices.ContainsFunc(running, func(s execution.SessionInfo) bool { return s.ID == id && s.Owner == owner }) {
		return err
	}
	return m.end(ctx, id)
}

// Call makes a call in a session. It waits for those that came before it. Its
// error is always an [*execution.Error].
func (m *Manager) Call(
	ctx context.Context, id string, operation execution.Operation, req execution.Request,
) (*execution.Result, error) {
	arrived := time.Now()
	req, err := m.opts.Limits.ValidateCall(operation, req)
	if err != nil {
		return nil, err
	}
	ctx, leave, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	h, err := m.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := m.takeTurn(ctx, h); err != nil {
		return nil, err
	}
	defer func() { <-h.turn }()
	result, err := m.call(ctx, h, operation, req)
	switch {
	case err == nil:
		result.Queue = max(0, result.Started.Sub(arrived))
		return result, nil
	case ctx.Err() != nil:
		return nil, left(ctx)
	}
	return nil, execution.AsError(err)
}

// takeTurn waits until it is a call's turn, if not too many wait. The session
// may have gone meanwhile: what is known under its id then has turns of its own.
func (m *Manager) takeTurn(ctx context.Context, h *held) error {
	if err := m.awaitTurn(ctx, h); err != nil {
		return err
	}
	if m.get(h.info.ID) != h {
		<-h.turn
		return notFound(h.info.ID)
	}
	return nil
}

func (m *Manager) awaitTurn(ctx context.Context, h *held) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	default:
	}
	if !m.queue(h) {
		return &execution.Error{Code: execution.Busy, Message: fmt.Sprintf(
			"%d calls of the session wait for the one that runs, as many as may; try again later", maxWaiting)}
	}
	defer m.unqueue(h)
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return left(ctx)
	}
}

func (m *Manager) queue(h *held) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.waiting >= maxWaiting {
		return false
	}
	h.waiting++
	return true
}

func (m *Manager) unqueue(h *held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h.waiting--
}

// left is the error of a call whose context has ended.
func left(ctx context.Context) error {
	if closing, ok := errors.AsType[*execution.Error](context.Cause(ctx)); ok {
		return closing
	}
	return &execution.Error{Code: execution.Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
}

// call makes a call, over a second connection where the first was of no use, unless
// that could not be sent what it takes: a connection ends what other servers have
// under way. It needs the session's turn.
func (m *Manager) call(
	ctx context.Context, h *held, operation execution.Operation, req execution.Request,
) (*execution.Result, error) {
	var err error
	for range 2 {
		if err = m.connect(ctx, h); err != nil {
			return nil, err
		}
		var result *execution.Result
		if result, err = h.link.Call(ctx, operation, req, m.opts.Limits); err == nil {
			m.explain(h, result)
			return result, nil
		}
		if !errors.Is(err, execution.ErrNotStarted) || ctx.Err() != nil {
			return nil, err
		}
		if slices.ContainsFunc(req.Files, execution.Input.UsedUp) {
			break
		}
	}
	return nil, &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again", Err: err}
}

// explain says of a call that the session's end has cut short that this is so.
func (m *Manager) explain(h *held, result *execution.Result) {
	switch {
	case result.End.Reason != execution.SandboxLost || !h.over():
	case h.ending.Load():
		result.End.Message = "the session was ended"
	default:
		result.End.Message = "the session has expired"
	}
}

// connect sees to it that there is a connection, and forgets a session that is
// gone. It needs the session's turn.
func (m *Manager) connect(ctx context.Context, h *held) error {
	if h.over() {
		return notFound(h.info.ID)
	}
	if h.link != nil && h.link.Usable() {
		return nil
	}
	if h.link != nil {
		h.link.Detach()
	}
	attaching, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	link, err := m.opts.Host.Attach(attaching, h.info.ID)
	if err != nil {
		return m.unattached(ctx, h, err)
	}
	return m.join(h, link)
}

// join gives a session a connection, unless it was forgotten while that was made,
// or all were given up: nobody would give up this one.
func (m *Manager) join(h *held, link execution.Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.lasting.Err() != nil:
		link.Detach()
		return errClosing
	case m.known[h.info.ID] != h:
		link.Detach()
		return notFound(h.info.ID)
	}
	h.link = link
	m.watchLocked(h, link)
	return nil
}

// unattached is the error of a session that could not be reached: it may have
// been about to end when it was found.
func (m *Manager) unattached(ctx context.Context, h *held, err error) error {
	_, explained := errors.AsType[*execution.Error](err)
	switch {
	case isNotFound(err), !explained && !m.runs(ctx, h):
		m.forget(h)
		return notFound(h.info.ID)
	case explained:
		return err
	}
	return &execution.Error{Code: execution.Unavailable, Message: "the session does not answer; try again", Err: err}
}

// runs says whether the host has a session, as far as it can tell.
func (m *Manager) runs(ctx context.Context, h *held) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	running, err := m.opts.Host.Sessions(ctx)
	return err != nil || slices.ContainsFunc(running, func(s execution.SessionInfo) bool { return s.ID == h.info.ID })
}

// Close refuses new calls, waits for those under way until ctx ends, calls off
// what is left, and gives up the connections. The sessions go on, for the next
// server to find. It may be called more than once.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closing {
		m.closing = true
		m.closeIdleLocked()
	}
	m.mu.Unlock()
	err := m.awaitIdle(ctx)
	m.stop(errClosing)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	_ = m.awaitIdle(ctx) // what does not heed that either has no connection left
	m.detachAll()
	return errors.Join(err, m.awaitWatchers(ctx))
}

// awaitWatchers waits until all connections have ended.
func (m *Manager) awaitWatchers(ctx context.Context) error {
	over := make(chan struct{})
	go func() {
		m.watchers.Wait()
		close(over)
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("connections to sessions did not end in time: %w", context.Cause(ctx))
	}
}

func (m *Manager) awaitIdle(ctx context.Context) error {
	select {
	case <-m.idle:
		return nil
	default:
	}
	select {
	case <-m.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("calls of sessions did not end in time: %w", context.Cause(ctx))
	}
}

// detachAll gives up all connections.
func (m *Manager) detachAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.known {
		h.end.Stop()
		if h.link != nil {
			h.link.Detach()
		}
	}
}
