package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a way whose runs all take the same time.
type fake struct {
	takes time.Duration
	err   error
}

func (f fake) run(ctx context.Context, _ program) (timing, error) {
	if err := sleep(ctx, f.takes); err != nil {
		return timing{}, err
	}
	return timing{took: f.takes}, f.err
}

func TestClientsCallForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got, err := callAll(t.Context(), fake{takes: 300 * time.Millisecond}, program{}, 2, 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		// Each client ends runs at 0.3 to 2.1 s, and begins none at 2.1 s.
		if len(got.timings) != 14 || len(got.refused) != 0 || got.perSecond(time.Second, 2*time.Second) != 6 || got.took(99) != 300 {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(began); took != 2100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestClientsCountRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := callAll(t.Context(), fake{takes: 400 * time.Millisecond, err: &refusal{errors.New("busy")}}, program{}, 1, time.Second)
		if err != nil || len(got.refused) != 3 || len(got.timings) != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestClientsEndAtAWrongAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := callAll(t.Context(), fake{takes: time.Second, err: errWrong}, program{}, 4, time.Minute)
		if !errors.Is(err, errWrong) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestPacedTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		open := func(context.Context, *contender) (subject, error) {
			return subject{fake{takes: 30 * time.Millisecond}, &meter{}, func() error { closed = true; return nil }}, nil
		}
		figures, err := pacing{each: time.Second, pause: 20 * time.Millisecond}.paced(program{}, open)(t.Context(), nil)
		if err != nil || !closed || figures[0] != (figure{"p50 ms", 30}) || figures[1] != (figure{"p99 ms", 30}) {
			t.Errorf("got %v, %v, closed %v", figures, err, closed)
		}
	})
}

func TestUsageIsOfOneRun(t *testing.T) {
	u := usage{machine: 5, server: counts{1, 100}, sandboxes: counts{3, 900}, together: counts{4, 1000}}
	want := []figure{
		{"CPU ms, machine", 500},
		{"CPU ms", 400},
		{"CPU ms, server", 100},
		{"CPU ms, sandboxes", 300},
		{"page faults", 100},
		{"page faults, server", 10},
		{"page faults, sandboxes", 90},
	}
	for i, got := range usageFigures(u, 10) {
		if got != want[i] {
			t.Errorf("got %v, want %v", got, want[i])
		}
	}
}
