package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
)

// warmUp is how long clients of the sustained part run before runs are counted.
// By then ours has spent the sandboxes that it kept warm, which would flatter it.
const warmUp = time.Second

// side is one way to run a program.
type side interface {
	run(ctx context.Context, p program) (timing, error)
}

// contender is a side with its name and the way it is paced.
type contender struct {
	name  string
	side  side
	pause time.Duration
	calls int
}

// measurement measures all sides in turns. The first is what the others are
// compared with.
type measurement struct {
	sides    []contender
	engine   *bare
	server   *server // whose memory is looked at
	ours     *ours   // the way to it
	runs     int     // that it has served
	opts     options
	progress io.Writer
}

// all fills in the report.
func (m *measurement) all(ctx context.Context, results *report) (err error) {
	if results.Memory.Before, err = m.idleMemory(ctx); err != nil {
		return err
	}
	if results.Memory.Sandbox, err = m.engine.memoryMB(ctx, m.server.id); err != nil {
		return err
	}
	if m.opts.calls > 0 {
		if results.Paced, err = m.paced(ctx); err != nil {
			return err
		}
	}
	for _, clients := range m.opts.clients {
		sustained, err := m.sustained(ctx, clients)
		if err != nil {
			return err
		}
		results.Sustained = append(results.Sustained, sustainedResult{Clients: clients, Sides: sustained})
	}
	if err := m.soak(ctx); err != nil {
		return err
	}
	if m.opts.cold > 0 {
		if results.Cold, err = m.cold(ctx); err != nil {
			return err
		}
	}
	if m.opts.ways > 0 {
		if results.Ways, err = m.ways(ctx); err != nil {
			return err
		}
	}
	if m.opts.mcp > 0 {
		if results.MCP, err = m.mcp(ctx); err != nil {
			return err
		}
	}
	if m.opts.files > 0 {
		if results.Files, err = m.files(ctx); err != nil {
			return err
		}
	}
	results.Memory.Runs = m.runs
	results.Memory.After, err = m.idleMemory(ctx)
	return err
}

// paced measures one client that pauses before each call: what a program costs
// in a server that has little to do. The first run of each turn does not count.
// Here every failure ends the benchmark.
func (m *measurement) paced(ctx context.Context) ([]sideResult, error) {
	m.say("paced: %s, %d calls", m.opts.program.name, m.opts.calls)
	tallies := make([]tally, len(m.sides))
	for range m.opts.rounds {
		for i, c := range m.sides {
			if err := sleep(ctx, m.opts.settle); err != nil {
				return nil, err
			}
			if err := m.pacedTurn(ctx, c, &tallies[i]); err != nil {
				return nil, err
			}
		}
	}
	return m.results(tallies), nil
}

func (m *measurement) pacedTurn(ctx context.Context, c contender, into *tally) error {
	for i := range c.calls/m.opts.rounds + 1 {
		if err := sleep(ctx, c.pause); err != nil {
			return err
		}
		took, err := c.side.run(ctx, m.opts.program)
		if err != nil {
			return err
		}
		m.count(c, 1)
		if i > 0 {
			into.timings = append(into.timings, took)
		}
	}
	return nil
}

// sustained measures clients that call back to back: how much the machine gets
// done.
func (m *measurement) sustained(ctx context.Context, clients int) ([]sideResult, error) {
	m.say("sustained: clients %d, %v of each side", clients, m.opts.each)
	window := m.opts.each / time.Duration(m.opts.rounds)
	tallies := make([]tally, len(m.sides))
	for range m.opts.rounds {
		for i, c := range m.sides {
			if err := sleep(ctx, m.opts.settle); err != nil {
				return nil, err
			}
			counted, err := drive(ctx, c.side, m.opts.program, clients, window)
			if err != nil {
				return nil, err
			}
			m.count(c, len(counted.timings))
			tallies[i].add(counted)
		}
	}
	return m.results(tallies), nil
}

// count counts the runs of the server whose memory is looked at.
func (m *measurement) count(c contender, runs int) {
	if c.side == side(m.ours) {
		m.runs += runs
	}
}

// soak makes runs until there have been as many as were asked for.
func (m *measurement) soak(ctx context.Context) error {
	if m.runs < m.opts.soak {
		m.say("soak: up to %d runs", m.opts.soak)
	}
	const clients, turn = 4, 5 * time.Second
	for m.runs < m.opts.soak {
		counted, err := drive(ctx, m.ours, m.opts.program, clients, turn)
		if err != nil {
			return err
		}
		m.runs += len(counted.timings)
	}
	return nil
}

// results compares the sides with the first.
func (m *measurement) results(tallies []tally) []sideResult {
	var results []sideResult
	first := tallies[0].summary()
	for i, c := range m.sides {
		s := tallies[i].summary()
		r := sideResult{Side: c.name, summary: s, Faster: ratio(first.P50, s.P50), Rate: ratio(s.PerSecond, first.PerSecond)}
		if i > 0 {
			r.Stages = tallies[i].stages()
		}
		results = append(results, r)
	}
	return results
}

// drive lets clients call one side back to back, and counts the runs that end
// within the window after the warm-up. All are finished when it returns.
func drive(ctx context.Context, s side, p program, clients int, window time.Duration) (tally, error) {
	from := time.Now().Add(warmUp)
	until := from.Add(window)
	counted := make([]tally, clients)
	group, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		group.Go(func() error { return call(ctx, s, p, from, until, &counted[i]) })
	}
	if err := group.Wait(); err != nil {
		return tally{}, err
	}
	total := tally{}
	for _, c := range counted {
		total.add(c)
	}
	total.window = window
	return total, nil
}

// call is one client of drive.
func call(ctx context.Context, s side, p program, from, until time.Time, into *tally) error {
	for time.Now().Before(until) {
		took, err := s.run(ctx, p)
		var refused *refusal
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		switch ended := time.Now(); {
		case ended.Before(from) || ended.After(until):
		case err != nil:
			into.failures++
		default:
			into.timings = append(into.timings, took)
		}
	}
	return nil
}

// idleMemory returns the server's resident memory when it has nothing to do and
// its pool is warm, or 0 if the system does not report it.
func (m *measurement) idleMemory(ctx context.Context) (float64, error) {
	if err := m.ours.ready(ctx); err != nil {
		return 0, err
	}
	if err := sleep(ctx, 2*m.opts.settle); err != nil {
		return 0, err
	}
	if runtime.GOOS != "linux" {
		return 0, nil
	}
	return memoryMB(m.server.pid(), "VmRSS:")
}

func (m *measurement) say(format string, args ...any) {
	_, _ = fmt.Fprintf(m.progress, format+"\n", args...)
}
