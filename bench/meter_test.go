package main

import (
	"math"
	"testing"
	"time"
)

func TestParseFaults(t *testing.T) {
	// The name has a space and a parenthesis; of the faults, 4102 are minor and 7 major, and
	// those of children are not counted.
	const stat = "25 (a) b) S 1 25 25 0 -1 4194560 4102 99 7 3 11 12 0 0 20 0 8 0 5 1000 200\n"
	if got := parseFaults(stat); got != 4109 {
		t.Errorf("got %v", got)
	}
	for _, bad := range []string{"", "25 (a", "25 (a) S 1", "25 (a) S 1 25 25 0 -1 4194560 x 99 7 3", "25 (a) S 1 25 25 0 -1 4194560 1 99 x 3"} {
		if got := parseFaults(bad); !math.IsNaN(got) {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

func TestParseBusy(t *testing.T) {
	if got := parseBusy("cpu  100 20 300 4000 50 6 7 800 0 0\ncpu0 1 2 3\n"); got != 4.33 {
		t.Errorf("got %v", got)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7", "cpu 1 2 3 4 5 6 x"} {
		if got := parseBusy(bad); !math.IsNaN(got) {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

func TestParseResident(t *testing.T) {
	if got := parseResident("VmPeak:\t 2048 kB\nVmRSS:\t   14848 kB\nThreads:\t7\n"); got != 14.5 {
		t.Errorf("got %v", got)
	}
	if got := parseResident("Threads:\t7\n"); !math.IsNaN(got) {
		t.Errorf("without VmRSS: got %v", got)
	}
}

func TestBusyCountsCoresInUse(t *testing.T) {
	at := time.Now()
	from := reading{at: at, server: counts{cpu: 1}, group: counts{cpu: 2}}
	to := reading{at: at.Add(2 * time.Second), server: counts{cpu: 1.5}, group: counts{cpu: 3}}
	if got := busy(from, to); got != 0.5 {
		t.Errorf("without an engine: got %v", got)
	}
	from.sandboxes, to.sandboxes = sandboxesReading{isRead: true, all: counts{cpu: 7}}, sandboxesReading{isRead: true, all: counts{cpu: 7.5}}
	if got := busy(from, to); got != 0.5 {
		t.Errorf("with an engine: got %v", got)
	}
	from.sandboxes.all = unknown()
	if got := busy(from, to); !math.IsNaN(got) {
		t.Errorf("where it is unknown: got %v", got)
	}
}

func TestUsedBetween(t *testing.T) {
	from := sandboxesReading{
		all: counts{100, 1000}, ours: []string{"aa", "bb"},
		each: map[string]counts{"aa": {10, 100}, "docker-bb.scope": {10, 100}, "cc": {20, 200}},
	}
	// aa has used 5 and stays. bb has used some and is gone, and so is dd, which began since.
	// cc is not ours and has used 7. ee is new, and so ours.
	to := sandboxesReading{
		all:  counts{130, 1300},
		each: map[string]counts{"aa": {15, 150}, "cc": {27, 270}, "ee": {1, 1}},
	}
	if got, want := usedBetween(from, to), (counts{23, 230}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	to.all = unknown()
	if got := usedBetween(from, to); !math.IsNaN(got.cpu) || !math.IsNaN(got.faults) {
		t.Errorf("where it is unknown: got %v", got)
	}
}
