package pool_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Two templates.
var (
	red  = execution.Spec{Image: "sha256:red"}
	blue = execution.Spec{Image: "sha256:blue"}
)

var errStart = errors.New("the engine refused")

// sandbox is a fake.
type sandbox struct {
	number int            // from 1, in the order of starts
	spec   execution.Spec // of the template
	bare   bool
	maker  *maker
	resets int // so far
	done   chan struct{}
	doomed chan struct{}
	worn   atomic.Bool // whether it must serve no other run as it is
	frozen atomic.Bool // whether it does not answer pings
	silent atomic.Bool // whether that was noticed
	end    sync.Once
	gone   sync.Once
}

func (s *sandbox) Run(context.Context, execution.Request, execution.Limits) (*execution.Result, error) {
	if s.maker.runTime == 0 {
		return nil, errors.New("the pool must not run programs")
	}
	pause(s.maker.runTime)
	return &execution.Result{Usage: execution.Usage{CPU: s.maker.runCPU}}, nil
}

func (s *sandbox) Reusable() bool { return s.maker.reusable && !s.worn.Load() && !s.Silent() }

func (s *sandbox) Resettable() bool { return s.maker.resettable && !s.Silent() }

func (s *sandbox) Reset(ctx context.Context) (execution.Sandbox, error) {
	select {
	case <-after(s.maker.resetTime):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.maker.resetErr != nil {
		return nil, s.maker.resetErr
	}
	s.die()
	anew := &sandbox{number: s.number, spec: s.spec, bare: s.bare, maker: s.maker, resets: s.resets + 1, done: make(chan struct{}), doomed: s.doomed}
	s.maker.mu.Lock()
	defer s.maker.mu.Unlock()
	s.maker.made[s.number-1] = anew
	return anew, nil
}

func (s *sandbox) Bare() bool { return s.bare }

func (s *sandbox) Renew(ctx context.Context) error {
	select {
	case <-after(s.maker.renewTime):
		return s.maker.renewErr
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sandbox) Check(ctx context.Context) error {
	s.maker.checks.Add(1)
	if !s.frozen.Load() {
		return nil
	}
	select {
	case <-after(checkTime):
		s.fallSilent()
		return errors.New("the sandbox does not answer")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// checkTime is how long the check of a frozen sandbox takes.
const checkTime = time.Second

func (s *sandbox) Silent() bool { return s.silent.Load() }

// fallSilent does what the runner does with a sandbox that does not answer.
func (s *sandbox) fallSilent() {
	s.silent.Store(true)
	s.die()
}

func (s *sandbox) Doomed() <-chan struct{} { return s.doomed }

func (s *sandbox) Done() <-chan struct{} { return s.done }

// die ends the sandbox from within.
func (s *sandbox) die() { s.end.Do(func() { close(s.done) }) }

func (s *sandbox) Close() error {
	s.die()
	pause(s.maker.closeTime)
	s.gone.Do(func() {
		s.maker.mu.Lock()
		defer s.maker.mu.Unlock()
		s.maker.live--
		s.maker.closed = append(s.maker.closed, s.number)
	})
	return s.maker.closeErr
}

// maker makes and counts fake sandboxes. Its settings must not change while a pool uses it.
// fail is called with the number of the attempt.
type maker struct {
	startTime, closeTime time.Duration
	preloadTime          time.Duration // of a sandbox that is not bare, beside startTime
	closeErr             error
	reusable             bool
	renewTime            time.Duration
	renewErr             error
	resettable           bool
	resetTime            time.Duration
	resetErr             error
	runTime, runCPU      time.Duration // of a program
	fail                 func(attempt int) error

	checks atomic.Int64

	mu       sync.Mutex
	attempts []time.Time
	made     []*sandbox
	closed   []int // numbers, in the order in which they were gone
	live     int   // from the beginning of the start to the end of the close
	peak     int   // the largest value of live
}

func (m *maker) start(ctx context.Context, spec execution.Spec) (execution.Sandbox, error) {
	attempt := m.begin()
	select {
	case <-ctx.Done():
		m.giveUp()
		return nil, context.Cause(ctx)
	case <-after(m.startTimeOf(spec)):
	}
	if m.fail != nil {
		if err := m.fail(attempt); err != nil {
			m.giveUp()
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	bare := spec.Bare && m.preloadTime > 0
	spec.Bare = false
	s := &sandbox{number: len(m.made) + 1, spec: spec, bare: bare, maker: m, done: make(chan struct{}), doomed: make(chan struct{})}
	m.made = append(m.made, s)
	return s, nil
}

func (m *maker) startTimeOf(spec execution.Spec) time.Duration {
	if spec.Bare {
		return m.startTime
	}
	return m.startTime + m.preloadTime
}

func (m *maker) begin() (attempt int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attempts = append(m.attempts, time.Now())
	m.live++
	m.peak = max(m.peak, m.live)
	return len(m.attempts)
}

func (m *maker) giveUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live--
}

// number returns a sandbox by its number.
func (m *maker) number(n int) *sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made[n-1]
}

// behind returns the fake that a leased sandbox wraps.
func (m *maker) behind(lent execution.Sandbox) *sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.made {
		if s.done == lent.Done() {
			return s
		}
	}
	return nil
}

func (m *maker) counts() (made, live, peak int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.made), m.live, m.peak
}

func (m *maker) attemptTimes() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.attempts)
}

func (m *maker) closedNumbers() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.closed)
}

// pause sleeps, in virtual time in a synctest bubble.
func pause(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

func after(d time.Duration) <-chan time.Time {
	if d > 0 {
		return time.After(d)
	}
	now := make(chan time.Time)
	close(now)
	return now
}

// elapse lets virtual time pass, and waits until all goroutines are blocked.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// newPool returns a pool that is closed at the end of the test. No sandbox may be left then.
func newPool(t *testing.T, m *maker, opts pool.Options) *pool.Pool {
	t.Helper()
	p, err := pool.New(m.start, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, live, peak := m.counts(); live != 0 || peak > opts.Max {
			t.Errorf("%d sandboxes are left; there were %d at once, of at most %d", live, peak, opts.Max)
		}
		if stats := p.Stats(); stats != (pool.Stats{}) {
			t.Errorf("after Close: %+v", stats)
		}
	})
	return p
}

// lease is a call of Lease, running or over.
type lease struct {
	sandbox *sandbox
	release func()
	err     error
	over    chan struct{}
	cancel  context.CancelFunc
}

// begin starts a Lease in the background.
func begin(t *testing.T, p *pool.Pool, m *maker, spec execution.Spec) *lease {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &lease{over: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(l.over)
		got, release, err := p.Lease(ctx, spec)
		if err == nil {
			l.sandbox = m.behind(got)
		}
		l.release, l.err = release, err
	}()
	return l
}

// result waits for a Lease that must succeed.
func (l *lease) result(t *testing.T) *sandbox {
	t.Helper()
	<-l.over
	if l.err != nil {
		t.Fatalf("Lease: %v", l.err)
	}
	return l.sandbox
}

func wantStats(t *testing.T, p *pool.Pool, want pool.Stats) {
	t.Helper()
	synctest.Wait()
	if got := p.Stats(); got != want {
		t.Errorf("stats are %+v, not %+v", got, want)
	}
}

func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	var domain *execution.Error
	if !errors.As(err, &domain) || domain.Code != execution.Unavailable {
		t.Errorf("the error is %v, not one of code unavailable", err)
	}
}
