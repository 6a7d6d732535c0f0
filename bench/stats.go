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
	took   time.Duration // until the program's output and exit code were known
	ended  time.Duration // since the turn began
	stages stages        // where a server's time went
	// server is what the run's own server or command has used; zero for a server
	// that serves many.
	server counts
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

// tally has the runs of one turn.
type tally struct {
	timings []timing
	refused []time.Duration // when a run was refused or could not be made, since the turn began
}

func (t *tally) add(other tally) {
	t.timings = append(t.timings, other.timings...)
	t.refused = append(t.refused, other.refused...)
}

// within returns the part that ended in [from, until).
func (t *tally) within(from, until time.Duration) tally {
	var part tally
	for _, run := range t.timings {
		if run.ended >= from && run.ended < until {
			part.timings = append(part.timings, run)
		}
	}
	for _, at := range t.refused {
		if at >= from && at < until {
			part.refused = append(part.refused, at)
		}
	}
	return part
}

// perSecond returns the rate of the runs that ended in [from, until).
func (t *tally) perSecond(from, until time.Duration) float64 {
	part := t.within(from, until)
	return float64(len(part.timings)) / (until - from).Seconds()
}

// took returns a percentile of the times, in ms.
func (t *tally) took(percent float64) float64 {
	return t.percentile(percent, func(run timing) time.Duration { return run.took })
}

// percentile returns a percentile of the runs' values, in ms; NaN without a run.
func (t *tally) percentile(percent float64, value func(timing) time.Duration) float64 {
	if len(t.timings) == 0 {
		return math.NaN()
	}
	values := make([]time.Duration, len(t.timings))
	for i, run := range t.timings {
		values[i] = value(run)
	}
	return milliseconds(percentile(values, percent))
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

// median returns the median of the known values, and NaN if there are none.
func median(values []float64) float64 {
	sorted := known(values)
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// known returns the values that are numbers, sorted.
func known(values []float64) []float64 {
	sorted := slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	slices.Sort(sorted)
	return sorted
}

// comparison is what the ratios of several rounds tell: their median, and an
// interval that contains the true median. NaN is unknown.
type comparison struct {
	rounds           int // that have a ratio
	ratio, low, high float64
}

// compare compares what two sides measured in the same rounds.
func compare(base, ours []float64) comparison {
	var ratios []float64
	for i, value := range base {
		if i < len(ours) {
			ratios = append(ratios, ours[i]/value)
		}
	}
	ratios = known(ratios)
	c := comparison{len(ratios), median(ratios), math.NaN(), math.NaN()}
	if n := c.rounds; n >= 2 {
		rank, _ := medianInterval(n)
		c.low, c.high = ratios[rank-1], ratios[n-rank]
	}
	return c
}

// enough is the confidence that an interval has if there are enough rounds for it: 6.
const enough = 0.95

// medianInterval returns the rank from either end of n sorted values between which the
// true median lies, and with which confidence. That is the sign test's interval, which
// supposes nothing about how the values are distributed: a value is below the median
// as often as above, so the number below has a binomial distribution.
func medianInterval(n int) (rank int, confidence float64) {
	probability := math.Pow(0.5, float64(n)) // that no value is below the median
	confidence = 1 - 2*probability
	for rank = 1; ; rank++ {
		probability *= float64(n-rank+1) / float64(rank) // that exactly rank values are
		next := confidence - 2*probability
		if next < enough {
			return rank, max(confidence, 0)
		}
		confidence = next
	}
}
