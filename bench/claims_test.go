package main

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPhaseFigures(t *testing.T) {
	got := phaseFigures([]phases{
		{10 * time.Millisecond, time.Millisecond, 70 * time.Millisecond},
		{20 * time.Millisecond, 3 * time.Millisecond, 50 * time.Millisecond},
		{30 * time.Millisecond, 2 * time.Millisecond, 60 * time.Millisecond},
	})
	want := []figure{{"p50 ms", 81}, {"p99 ms", 92}, {"patch ms", 20}, {"connect ms", 2}, {"boot ms", 60}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(figure{})); diff != "" {
		t.Error(diff)
	}
}

func TestLookupInTakesTheLast(t *testing.T) {
	lookup := lookupIn([]string{"A=1", "AB=2", "A=3"})
	if value, found := lookup("A"); value != "3" || !found {
		t.Errorf("A is %q, %v", value, found)
	}
	if value, found := lookup("B"); value != "" || found {
		t.Errorf("B is %q, %v", value, found)
	}
}

// What pods of a pool have used is known only if none came or went.
func TestPodsUsed(t *testing.T) {
	from := sandboxesReading{ours: []string{"aa"}, each: map[string]counts{"podaa": {10, 100}, "podbb": {5, 50}}}
	to := sandboxesReading{ours: []string{"aa"}, each: map[string]counts{"podaa": {13, 130}, "podbb": {9, 90}}}
	p := &podGroups{}
	if got := p.used(t.Context(), from, to); got != (counts{3, 30}) {
		t.Errorf("got %v", got)
	}
	to.each["podcc"] = counts{1, 1}
	if got := p.used(t.Context(), from, to); !math.IsNaN(got.cpu) {
		t.Errorf("where a pod has come: got %v", got)
	}
}
