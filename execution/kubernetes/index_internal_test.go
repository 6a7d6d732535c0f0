package kubernetes

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// crowded returns an index with many pods.
func crowded(blanks, sessions int) *index {
	x := newIndex()
	x.mu.Lock()
	defer x.mu.Unlock()
	for n := range blanks + sessions {
		p := &pod{
			name: fmt.Sprintf("pod-%06d", n), uid: fmt.Sprint(n), version: "1", hash: "a", state: stateFree, created: time.Unix(int64(n%97), 0),
			addresses: []string{"192.0.2.1"}, pin: "sha256:", ready: true,
		}
		if n >= blanks {
			p.state, p.session = stateSession, execution.SessionInfo{ID: p.uid, Owner: execution.Owner(fmt.Sprint(n % 100))}
		}
		x.putLocked(p)
	}
	return x
}

// What is counted by owner is what a count of all sessions finds, whatever becomes of pods.
func TestOwners(t *testing.T) {
	x, random := newIndex(), rand.New(rand.NewPCG(1, 2))
	for version := range 3000 {
		id := random.IntN(8)
		p := &pod{
			name: fmt.Sprint("pod-", id), uid: fmt.Sprint("uid-", random.IntN(2)), version: fmt.Sprint(version + 1),
			state: []string{stateFree, stateRun, stateSession, stateSession}[random.IntN(4)], ended: random.IntN(5) == 0,
		}
		if p.state == stateSession {
			p.session = execution.SessionInfo{ID: fmt.Sprint(id), Owner: execution.Owner(fmt.Sprint(random.IntN(3)))}
		}
		switch random.IntN(4) {
		case 0:
			x.lose(p)
		case 1:
			x.deleting(p)
		default:
			x.learn(p)
		}
		var all []execution.SessionInfo
		for _, p := range x.sessions {
			if p.runs() {
				all = append(all, p.session)
			}
		}
		for _, except := range [][]string{nil, {"1", "2", "9"}} {
			wantOwn, wantAll := execution.CountSessions(all, "1", except)
			own, sum := x.count("1", except)
			if diff := cmp.Diff([]int{wantOwn, wantAll}, []int{own, sum}); diff != "" {
				t.Fatalf("without %v (-want +got):\n%s", except, diff)
			}
		}
		if own, _ := x.count("1", nil); len(x.owned("1")) != own {
			t.Fatalf("%d sessions are listed, %d counted", len(x.owned("1")), own)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	for _, blanks := range []int{100, 1000, 20_000} {
		b.Run(fmt.Sprint(blanks), func(b *testing.B) {
			x := crowded(blanks, 0)
			for b.Loop() {
				x.settle(x.take(want{hash: "a"}), false)
			}
		})
	}
}

func BenchmarkCount(b *testing.B) {
	for _, sessions := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			x := crowded(0, sessions)
			for b.Loop() {
				x.count("1", nil)
			}
		})
	}
}
