package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// warmUp is how long clients call back to back before runs are counted. By then a server
// has spent the sandboxes that it kept warm, which would flatter it.
const warmUp = time.Second

// figure is one of the values that a turn measures. Times are in ms. NaN is unknown.
type figure struct {
	name  string
	value float64
}

// refused is the figure that counts the runs of a turn that a side refused.
const refused = "refused"

// turn measures one side once.
type turn func(ctx context.Context, c *contender) ([]figure, error)

// pacing is how a turn with one client that pauses is done.
type pacing struct {
	each, pause time.Duration
	stages      bool
}

// paced returns a turn with one client that pauses before each call: what a run costs a
// server that has little to do. The first run does not count. Here every failure ends the
// benchmark.
func (p pacing) paced(run program, open opener) turn {
	return func(ctx context.Context, c *contender) (figures []figure, err error) {
		s, err := open(ctx, c)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		if _, err := p.call(ctx, s.way, run); err != nil {
			return nil, err
		}
		if err := sleep(ctx, settleRun); err != nil {
			return nil, err
		}
		t, used, err := s.meter.measure(ctx, func() (t tally, err error) {
			for began := time.Now(); len(t.timings) == 0 || time.Since(began) < p.each; {
				took, err := p.call(ctx, s.way, run)
				if err != nil {
					return t, err
				}
				t.timings = append(t.timings, took)
			}
			return t, nil
		})
		figures = append([]figure{{"p50 ms", t.took(50)}, {"p99 ms", t.took(99)}}, usageFigures(used, len(t.timings))...)
		if p.stages {
			figures = append(figures, stageFigures(t)...)
		}
		return figures, err
	}
}

func (p pacing) call(ctx context.Context, w way, run program) (timing, error) {
	if err := sleep(ctx, p.pause); err != nil {
		return timing{}, err
	}
	return w.run(ctx, run)
}

// sustained returns a turn with clients that call back to back: how much the machine gets
// done.
func (p pacing) sustained(run program, clients int, open opener) turn {
	return func(ctx context.Context, c *contender) (figures []figure, err error) {
		t, used, err := drive(ctx, c, run, clients, warmUp+p.each, open)
		if err != nil {
			return nil, err
		}
		counted := t.within(warmUp, warmUp+p.each)
		figures = append([]figure{
			{"runs/s", t.perSecond(warmUp, warmUp+p.each)},
			{"p50 ms", counted.took(50)},
			{"p99 ms", counted.took(99)},
			{refused, float64(len(t.refused))},
		}, usageFigures(used, len(t.timings))...)
		if p.stages {
			figures = append(figures, stageFigures(counted)...)
		}
		return figures, nil
	}
}

// burst returns a turn with clients that begin to call back to back at once, when the
// server has nothing but its idle pool.
func (p pacing) burst(run program, clients int) turn {
	return func(ctx context.Context, c *contender) (figures []figure, err error) {
		t, used, err := drive(ctx, c, run, clients, time.Second+p.each, ofFresh)
		if err != nil {
			return nil, err
		}
		return append([]figure{
			{"runs/s, first second", t.perSecond(0, time.Second)},
			{"runs/s after it", t.perSecond(time.Second, time.Second+p.each)},
			{"p99 ms", t.took(99)},
			{refused, float64(len(t.refused))},
		}, usageFigures(used, len(t.timings))...), nil
	}
}

// drive opens a way and lets clients call it back to back for a time. All runs have ended
// when it returns; some may end later than that time.
func drive(ctx context.Context, c *contender, p program, clients int, each time.Duration, open opener) (t tally, u usage, err error) {
	s, err := open(ctx, c)
	if err != nil {
		return tally{}, usage{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.meter.measure(ctx, func() (tally, error) { return callAll(ctx, s.way, p, clients, each) })
}

func callAll(ctx context.Context, w way, p program, clients int, each time.Duration) (tally, error) {
	tallies := make([]tally, clients)
	group, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for i := range clients {
		group.Go(func() (err error) {
			tallies[i], err = call(ctx, w, p, began, each)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return tally{}, err
	}
	total := tally{}
	for _, t := range tallies {
		total.add(t)
	}
	return total, nil
}

// call is one client.
func call(ctx context.Context, w way, p program, began time.Time, each time.Duration) (t tally, err error) {
	for time.Since(began) < each {
		took, err := w.run(ctx, p)
		took.ended = time.Since(began)
		var denied *refusal
		switch {
		case err == nil:
			t.timings = append(t.timings, took)
		case errors.As(err, &denied):
			t.refused = append(t.refused, took.ended)
		default:
			return t, err
		}
	}
	return t, nil
}

// usageFigures returns what each run has used.
func usageFigures(u usage, runs int) []figure {
	n := float64(runs)
	return []figure{
		{"CPU ms, machine", u.machine * 1000 / n},
		{"CPU ms", u.together.cpu * 1000 / n},
		{"CPU ms, server", u.server.cpu * 1000 / n},
		{"CPU ms, sandboxes", u.sandboxes.cpu * 1000 / n},
		{"page faults", u.together.faults / n},
		{"page faults, server", u.server.faults / n},
		{"page faults, sandboxes", u.sandboxes.faults / n},
	}
}

// stageFigures returns the medians of where a server's time went, if it reports that.
func stageFigures(t tally) []figure {
	if !slices.ContainsFunc(t.timings, func(run timing) bool { return run.stages != stages{} }) {
		return nil
	}
	var figures []figure
	for i, name := range stageNames() {
		value := t.percentile(50, func(run timing) time.Duration { return run.stages[i] })
		figures = append(figures, figure{fmt.Sprintf("%s ms", name), value})
	}
	return figures
}

// settle waits until servers and their sandboxes have next to nothing to do for some
// windows of time. Where that cannot be known, it waits for as long as pools take mostly.
func settle(ctx context.Context, windows int, meters ...*meter) error {
	const window, quiet, patience, blind = 400 * time.Millisecond, 0.04, 20 * time.Second, 2 * time.Second
	read := func() (readings []reading) {
		for _, m := range meters {
			readings = append(readings, m.read(ctx))
		}
		return readings
	}
	began, left := time.Now(), windows
	for from := read(); time.Since(began) < patience; {
		if err := sleep(ctx, window); err != nil {
			return err
		}
		to, cores := read(), 0.0
		for i := range meters {
			cores = max(cores, busy(from[i], to[i]))
		}
		from = to
		switch {
		case math.IsNaN(cores) && time.Since(began) < blind:
		case math.IsNaN(cores):
			return nil
		case cores > quiet:
			left = windows
		default:
			if left--; left == 0 {
				return nil
			}
		}
	}
	return nil
}
