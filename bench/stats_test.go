package main

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100-i) * time.Millisecond // 100 ms down to 1 ms
	}
	for _, test := range []struct {
		name    string
		values  []time.Duration
		percent float64
		want    time.Duration
	}{
		{"none", nil, 50, 0},
		{"one", []time.Duration{7}, 99, 7},
		{"zeroth is the smallest", []time.Duration{3, 1, 2}, 0, 1},
		{"median of three", []time.Duration{3, 1, 2}, 50, 2},
		{"median of four is the lower middle", []time.Duration{4, 1, 3, 2}, 50, 2},
		{"median of a hundred", hundred, 50, 50 * time.Millisecond},
		{"99th of a hundred", hundred, 99, 99 * time.Millisecond},
		{"100th of a hundred", hundred, 100, 100 * time.Millisecond},
		{"99th of few is the largest", hundred[:40], 99, 100 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := percentile(test.values, test.percent); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	if hundred[0] != 100*time.Millisecond {
		t.Error("the values were sorted in place")
	}
}

func TestSummary(t *testing.T) {
	var total tally
	total.add(tally{timings: []timing{{answer: 1e6, whole: 2e6}, {answer: 3e6, whole: 4e6}}, window: time.Second})
	total.add(tally{timings: []timing{{answer: 5e6, whole: 6e6}}, failures: 2, window: time.Second})
	want := summary{Runs: 3, Failures: 2, PerSecond: 1.5, P50: 4, P99: 6, AnswerP50: 3}
	if got := total.summary(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := (&tally{}).summary(); got != (summary{}) {
		t.Errorf("of nothing: got %+v", got)
	}
	if got := ratio(1, 0); got != 0 {
		t.Errorf("ratio by zero: got %v", got)
	}
}
