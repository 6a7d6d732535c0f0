package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a side whose runs all take the same time.
type fake struct {
	takes time.Duration
	err   error
}

func (f fake) run(ctx context.Context, _ program) (timing, error) {
	if err := sleep(ctx, f.takes); err != nil {
		return timing{}, err
	}
	return timing{answer: f.takes, whole: f.takes}, f.err
}

func TestDriveCountsWhatEndsInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got, err := drive(t.Context(), fake{takes: 300 * time.Millisecond}, small(), 2, 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		// Each client ends runs at 0.3, 0.6, 0.9 s, which is the warm-up, then
		// at 1.2 to 3.0 s, and begins none at 3.0 s.
		if s := got.summary(); s.Runs != 14 || s.Failures != 0 || s.PerSecond != 7 || s.P99 != 300 {
			t.Errorf("got %+v", s)
		}
		if took := time.Since(began); took != warmUp+2*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestDriveCountsRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := drive(t.Context(), fake{takes: 400 * time.Millisecond, err: &refusal{errors.New("busy")}}, small(), 1, time.Second)
		if s := got.summary(); err != nil || s.Failures != 3 || s.Runs != 0 {
			t.Errorf("got %+v, %v", s, err)
		}
	})
}

func TestDriveEndsAtAWrongAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := drive(t.Context(), fake{takes: time.Second, err: errWrong}, small(), 4, time.Minute)
		if !errors.Is(err, errWrong) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
