package main

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// timing is how long one run took.
type timing struct {
	answer time.Duration // until the program's output and exit code were known
	whole  time.Duration // until nothing was left of it; ours is cleaned up off the caller's path
	stages stages        // where a server's time went
}

// stages are the parts of a run that a server tells of, in order.
type stages [8]time.Duration

// stageNames returns the names of the stages in the header Server-Timing.
func stageNames() [len(stages{})]string {
	return [...]string{"admit", "lease", "send", "run", "kill", "collect", "clean", "prepare"}
}

// parseStages reads the header Server-Timing.
func parseStages(header string) stages {
	var s stages
	names := stageNames()
	for entry := range strings.SplitSeq(header, ", ") {
		name, value, _ := strings.Cut(entry, ";dur=")
		if i := slices.Index(names[:], name); i >= 0 {
			ms, _ := strconv.ParseFloat(value, 64) // 0 if it is not a number
			s[i] = time.Duration(ms * float64(time.Millisecond))
		}
	}
	return s
}

// tally collects the runs of one side.
type tally struct {
	timings  []timing
	failures int           // runs that the side refused or failed to do
	window   time.Duration // the time in which they were counted; 0 when paced
}

func (t *tally) add(other tally) {
	t.timings = append(t.timings, other.timings...)
	t.failures += other.failures
	t.window += other.window
}

// summary is what is published of a tally. Times are milliseconds.
type summary struct {
	Runs      int     `json:"runs"`
	Failures  int     `json:"failures"`
	PerSecond float64 `json:"runs_per_second,omitempty"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	AnswerP50 float64 `json:"answer_p50_ms"`
}

// stages returns the median of each stage in milliseconds, or nil if there are no
// stages.
func (t *tally) stages() map[string]float64 {
	if !slices.ContainsFunc(t.timings, func(run timing) bool { return run.stages != stages{} }) {
		return nil
	}
	medians := make(map[string]float64)
	for i, name := range stageNames() {
		values := make([]time.Duration, len(t.timings))
		for j, run := range t.timings {
			values[j] = run.stages[i]
		}
		medians[name] = milliseconds(percentile(values, 50))
	}
	return medians
}

func (t *tally) summary() summary {
	answers, wholes := make([]time.Duration, len(t.timings)), make([]time.Duration, len(t.timings))
	for i, run := range t.timings {
		answers[i], wholes[i] = run.answer, run.whole
	}
	s := summary{
		Runs: len(t.timings), Failures: t.failures,
		P50: milliseconds(percentile(wholes, 50)), P99: milliseconds(percentile(wholes, 99)),
		AnswerP50: milliseconds(percentile(answers, 50)),
	}
	if t.window > 0 {
		s.PerSecond = float64(s.Runs) / t.window.Seconds()
	}
	return s
}

// percentile returns the smallest value that at least percent of all values do
// not exceed (the nearest-rank method), and 0 if there are none.
func percentile(values []time.Duration, percent float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ratio returns a/b, or 0 if b is 0.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
