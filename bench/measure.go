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

// measurement measures both sides in turns.
type measurement struct {
	bare     side
	ours     *ours
	opts     options
	progress io.Writer
}

// all fills in the report. The server's process is pid.
func (m *measurement) all(ctx context.Context, pid int, results *report) (err error) {
	if results.IdleMB.Before, err = m.idleMemory(ctx, pid); err != nil {
		return err
	}
	for _, p := range m.pacedPrograms() {
		paced, err := m.paced(ctx, p)
		if err != nil {
			return err
		}
		results.Paced = append(results.Paced, paced)
	}
	for _, clients := range m.opts.clients {
		sustained, err := m.sustained(ctx, clients)
		if err != nil {
			return err
		}
		results.Sustained = append(results.Sustained, sustained)
	}
	results.IdleMB.After, err = m.idleMemory(ctx, pid)
	return err
}

func (m *measurement) pacedPrograms() []program {
	switch {
	case m.opts.calls == 0:
		return nil
	case m.opts.pandas:
		return []program{small(), pandas()}
	}
	return []program{small()}
}

// paced measures one client that calls when the pool has refilled: what a
// program costs in a server that has little to do. The first run of each side
// does not count. Here every failure ends the benchmark.
func (m *measurement) paced(ctx context.Context, p program) (pacedResult, error) {
	m.say("paced: %s, %d calls of each side", p.name, m.opts.calls)
	var bare, ours tally
	for i := range m.opts.calls + 1 {
		for _, turn := range m.turns(&bare, &ours) {
			if err := sleep(ctx, m.opts.pause); err != nil {
				return pacedResult{}, err
			}
			took, err := turn.side.run(ctx, p)
			if err != nil {
				return pacedResult{}, err
			}
			if i > 0 {
				turn.into.timings = append(turn.into.timings, took)
			}
		}
	}
	return newPacedResult(p.name, bare.summary(), ours.summary()), nil
}

// sustained measures clients that call back to back: how much the machine gets
// done.
func (m *measurement) sustained(ctx context.Context, clients int) (sustainedResult, error) {
	m.say("sustained: clients %d, %v of each side", clients, m.opts.each)
	window := m.opts.each / time.Duration(m.opts.rounds)
	var bare, ours tally
	for range m.opts.rounds {
		for _, turn := range m.turns(&bare, &ours) {
			if err := sleep(ctx, m.opts.settle); err != nil {
				return sustainedResult{}, err
			}
			counted, err := drive(ctx, turn.side, small(), clients, window)
			if err != nil {
				return sustainedResult{}, err
			}
			turn.into.add(counted)
		}
	}
	return newSustainedResult(clients, bare.summary(), ours.summary()), nil
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

// idleMemory gives the server's resident memory when it has nothing to do and
// its pool is warm, or 0 where the system does not tell.
func (m *measurement) idleMemory(ctx context.Context, pid int) (float64, error) {
	if err := m.ours.ready(ctx); err != nil {
		return 0, err
	}
	if err := sleep(ctx, 2*m.opts.settle); err != nil {
		return 0, err
	}
	if runtime.GOOS != "linux" {
		return 0, nil
	}
	return residentMB(pid)
}

// turn is one side's part of a round.
type turn struct {
	side side
	into *tally
}

func (m *measurement) turns(bare, ours *tally) []turn {
	return []turn{{m.bare, bare}, {m.ours, ours}}
}

func (m *measurement) say(format string, args ...any) {
	_, _ = fmt.Fprintf(m.progress, format+"\n", args...)
}
