package runner

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// A sandbox must show a sign of life within 2 s whenever the server waits for
// it. Time is counted in beats that this server really had, so a server that was
// itself stopped or starved does not give up its sandboxes when it wakes.
const (
	// beatTime is the time between two looks at a sandbox that is waited for.
	beatTime = 250 * time.Millisecond
	// beatsPerPing is how many beats pass between two pings: a run of less than
	// half a second sees none.
	beatsPerPing = 2
	// maxMissed beats in a row without a sign of life make a sandbox silent: it is
	// given up between 1.75 and 2 s after the last one.
	maxMissed = 7
	// maxMissedFirst is the same before the first sign, which comes when Python has
	// started: 10 s.
	maxMissedFirst = 40
	// idlePause is the time from an idle sandbox's answer to its next ping.
	idlePause = supervisor.Silence / 3
	// maxPongs is how many pongs may come between two beats.
	maxPongs = 100
)

// errSilent reports that a sandbox was given up because it showed no sign of
// life.
var errSilent = errors.New("the sandbox does not answer")

// mode is what a pulse expects of its sandbox.
type mode int

const (
	// atRest expects nothing and sends nothing: a session between calls.
	atRest mode = iota
	// starting is busy with more patience for the first sign of life.
	starting
	// idle expects each ping to be answered.
	idle
	// busy expects signs of life while somebody waits for the sandbox.
	busy
)

// pulse watches whether a sandbox is alive. Any byte that arrives from it is a
// sign of life.
type pulse struct {
	ping   func() // sends a ping; it may block
	giveUp func() // is called once, when the sandbox is silent

	answers chan struct{} // has room for one, and gets a pong's notice
	signs   atomic.Uint64 // of life, so far
	pongs   atomic.Int32  // since the last beat
	waiters atomic.Int32  // how many wait for the sandbox to speak or to read
	deaf    atomic.Bool   // it answers no pings: no answer is expected either

	mu      sync.Mutex
	stopped bool
	timer   *time.Timer // runs unless at rest; nil until the first mode is set
	mode    mode
	seen    uint64 // the signs at the last beat
	asked   bool   // a sign is due
	beats   int    // since the mode was set
	missed  int    // beats in a row without a sign that was due
}

func newPulse(ping, giveUp func()) *pulse {
	return &pulse{ping: ping, giveUp: giveUp, answers: make(chan struct{}, 1)}
}

// sign notes a sign of life.
func (p *pulse) sign() { p.signs.Add(1) }

// wait notes that somebody waits for the sandbox, until resume is called. Time
// that this server spends otherwise, as on a slow store, is not the sandbox's.
func (p *pulse) wait() { p.waiters.Add(1) }

// resume ends a wait.
func (p *pulse) resume() { p.waiters.Add(-1) }

// pong notes an answer to a ping. It reports false for more answers than anybody
// asked for: they would keep this server busy.
func (p *pulse) pong() bool {
	select {
	case p.answers <- struct{}{}:
	default:
	}
	return p.pongs.Add(1) <= maxPongs
}

// stop ends the watch for good.
func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// set changes what is expected of the sandbox from now on.
func (p *pulse) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.mode, p.beats, p.missed = m, 0, 0
	p.seen, p.asked = p.signs.Load(), m == busy || m == starting
	p.pongs.Store(0)
	switch pause := p.pause(); {
	case m == atRest && p.timer == nil:
	case m == atRest:
		p.timer.Stop()
	case p.timer == nil:
		p.timer = time.AfterFunc(pause, p.beat)
	default:
		p.timer.Reset(pause)
	}
}

// pause returns the time until the next beat. It needs mu.
func (p *pulse) pause() time.Duration {
	if p.asked {
		return beatTime
	}
	return idlePause
}

// beat looks whether the sandbox is alive, and asks it to show that.
func (p *pulse) beat() {
	asks, silent := p.look()
	if silent {
		p.giveUp()
	}
	if asks {
		p.ping()
	}
}

// look reports whether a ping is due, and whether the sandbox is silent.
func (p *pulse) look() (asks, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.mode == atRest {
		return false, false
	}
	p.pongs.Store(0)
	signs := p.signs.Load()
	answered := signs != p.seen
	p.seen = signs
	p.beats++
	switch {
	case answered || p.deaf.Load(), p.mode != idle && p.waiters.Load() == 0:
		p.missed = 0
	case p.asked:
		p.missed++
	}
	most := maxMissed
	if p.mode == starting && signs == 0 {
		most = maxMissedFirst
	}
	if p.missed >= most {
		p.stopped = true
		return false, true
	}
	switch {
	case p.mode != idle:
		asks = p.beats%beatsPerPing == 0
	case p.asked && answered:
		p.asked = false
	default:
		asks = p.missed%beatsPerPing == 0
		p.asked = true
	}
	p.timer.Reset(p.pause())
	return asks, false
}
