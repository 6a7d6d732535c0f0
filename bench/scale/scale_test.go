package main

import (
	"io"
	"net/netip"
	"testing"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/execution/link"

	corev1 "k8s.io/api/core/v1"
)

func TestParse(t *testing.T) {
	if o, err := parse([]string{"-kubernetes", "/k", "-pods", "5", "-sessions", "5"}, io.Discard); err != nil || o.sessions != 5 {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, bad := range [][]string{nil, {"-kubernetes", "/k", "x"}, {"-kubernetes", "/k", "-pods", "0"}, {"-kubernetes", "/k", "-pods", "1", "-sessions", "2"}} {
		if _, err := parse(bad, io.Discard); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// A server takes the pods for blanks that it can claim.
func TestStatus(t *testing.T) {
	seen := make(map[string]bool)
	for _, n := range []int{0, 255, 256, 70_000} {
		s := status(n)
		facts, err := link.ParseFacts(s.InitContainerStatuses[0].State.Terminated.Message)
		if err != nil || !facts.UserNS || !facts.NetNS {
			t.Errorf("facts %+v, %v", facts, err)
		}
		if _, err := netip.ParseAddr(s.PodIP); err != nil || seen[s.PodIP] {
			t.Errorf("pod %d has the address %s: %v", n, s.PodIP, err)
		}
		seen[s.PodIP] = true
		if !cluster.IsReady(&corev1.Pod{Status: s}) {
			t.Errorf("pod %d is not ready", n)
		}
	}
}
