package main

import (
	"math"
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

func TestMedianIgnoresWhatIsUnknown(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{math.NaN(), 3, math.Inf(1), 1}, 2},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("of %v: got %v, want %v", test.values, got, test.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v", got)
	}
}

// The table of the sign test's intervals, as in textbooks.
func TestMedianInterval(t *testing.T) {
	for _, test := range []struct {
		n, rank    int
		confidence float64
	}{
		{1, 1, 0},
		{2, 1, 0.5},
		{3, 1, 0.75},
		{5, 1, 0.9375},
		{6, 1, 0.96875},
		{8, 1, 0.9921875},
		{9, 2, 0.9609375},
		{12, 3, 0.96142578125},
		{20, 6, 0.95861053466796875},
	} {
		rank, confidence := medianInterval(test.n)
		if rank != test.rank || math.Abs(confidence-test.confidence) > 1e-12 {
			t.Errorf("%d values: got %d, %v, want %d, %v", test.n, rank, confidence, test.rank, test.confidence)
		}
	}
}

func TestCompareTakesTheRoundsRatios(t *testing.T) {
	// The second round was four times as slow for both: the ratio is the same.
	if got, want := compare([]float64{1, 4, 1}, []float64{2, 8, 3}), (comparison{3, 2, 2, 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// Of nine ratios, 2 to 10, the interval leaves out one at either end.
	base, ours := []float64{1, 1, 1, 1, 1, 1, 1, 1, 1}, []float64{10, 9, 8, 7, 6, 5, 4, 3, 2}
	if got, want := compare(base, ours), (comparison{9, 6, 3, 9}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// What is unknown, or a ratio to nothing, is left out.
	if got := compare([]float64{math.NaN(), 0, 2}, []float64{1, 1, 1}); got.ratio != 0.5 || !math.IsNaN(got.low) || !math.IsNaN(got.high) {
		t.Errorf("got %+v", got)
	}
	if got := compare(nil, []float64{1}); !math.IsNaN(got.ratio) {
		t.Errorf("without a base: got %+v", got)
	}
}

func TestTallyWithin(t *testing.T) {
	all := tally{
		timings: []timing{{took: 1e6, ended: 0}, {took: 2e6, ended: time.Second}, {took: 4e6, ended: 2 * time.Second}, {took: 3e6, ended: 3 * time.Second}},
		refused: []time.Duration{0, time.Second, 3 * time.Second},
	}
	part := all.within(time.Second, 3*time.Second)
	if len(part.timings) != 2 || len(part.refused) != 1 || part.took(50) != 2 || part.took(99) != 4 {
		t.Errorf("got %+v", part)
	}
	if got := all.perSecond(time.Second, 3*time.Second); got != 1 {
		t.Errorf("got %v a second", got)
	}
	if got := (&tally{}).took(50); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v", got)
	}
}

func TestParseStages(t *testing.T) {
	got := parseStages("admit;dur=0.1, run;dur=2.5, other;dur=9, clean;dur=x")
	if want := (stages{100 * time.Microsecond, 0, 0, 2500 * time.Microsecond}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
