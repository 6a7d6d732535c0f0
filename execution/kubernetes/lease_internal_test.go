package kubernetes

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leaseOf returns a server's Lease, renewed at a time.
func leaseOf(instance string, renewed time.Time) *coordinationv1.Lease {
	at := metav1.NewMicroTime(renewed)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: leaseName(instance), Annotations: map[string]string{notePeer: instance + ":8001"}},
		Spec:       coordinationv1.LeaseSpec{RenewTime: &at},
	}
}

// pass lets seconds pass, in which this server renews its Lease, and a few others theirs.
func pass(l *leases, seconds int, others ...string) {
	for range seconds / 10 {
		time.Sleep(10 * time.Second)
		l.renewed(nil)
		for _, other := range others {
			_ = l.Update(leaseOf(other, time.Now()))
		}
	}
}

// newTestLeases returns the leases of a server that begins, beside another one.
func newTestLeases(renewed time.Time) *leases {
	l := newLeases(func() {})
	l.renewed(nil)
	_ = l.Replace([]any{leaseOf("other", renewed)}, "1")
	return l
}

func TestLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLeases(time.Now())
		pass(l, 300, "other")
		if over := l.over("other"); over >= 0 {
			t.Errorf("a Lease that is renewed is over for %v", over)
		}
		pass(l, 20)
		if over := l.over("other"); over >= 0 {
			t.Errorf("after 20 s a Lease is over for %v", over)
		}
		pass(l, 40)
		if over := l.over("other"); over != 30*time.Second {
			t.Errorf("after 60 s a Lease is over for %v", over)
		}
		if l.peer("other") != "other:8001" {
			t.Errorf("its peer is %q", l.peer("other"))
		}
	})
}

// The clock of another server may be wrong by any time.
func TestLeaseOfAnotherClock(t *testing.T) {
	for name, wrong := range map[string]time.Duration{"late": -time.Hour, "early": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTestLeases(time.Now().Add(wrong))
				for range 10 {
					pass(l, 10)
					_ = l.Update(leaseOf("other", time.Now().Add(wrong)))
				}
				if over := l.over("other"); over >= 0 {
					t.Errorf("a Lease that is renewed is over for %v", over)
				}
				pass(l, 90)
				if over := l.over("other"); over != time.Minute {
					t.Errorf("it is over for %v", over)
				}
			})
		})
	}
}

// A server that was stopped, or had no apiserver, does not believe that the others are gone.
func TestLeaseAfterAnInterruption(t *testing.T) {
	for name, interrupt := range map[string]func(*leases){
		"stopped": func(*leases) { time.Sleep(time.Hour) },
		"no apiserver": func(l *leases) {
			for range 60 {
				l.renewed(errors.New("no answer"))
				time.Sleep(10 * time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newTestLeases(time.Now())
				pass(l, 60, "other")
				interrupt(l)
				if over := l.over("other"); over >= 0 {
					t.Errorf("at once it is over for %v", over)
				}
				l.renewed(nil)
				pass(l, 20)
				if over := l.over("other"); over >= 0 {
					t.Errorf("soon it is over for %v", over)
				}
				pass(l, 10)
				if over := l.over("other"); over != 30*time.Second {
					t.Errorf("then it is over for %v", over)
				}
			})
		})
	}
}

// A Lease that was released is over at once.
func TestReleasedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLeases(time.Now())
		_ = l.Delete(leaseOf("other", time.Now()))
		if over := l.over("other"); over < 0 {
			t.Errorf("it is over for %v", over)
		}
		_ = l.Update(leaseOf("third", time.Now()))
		_ = l.Replace(nil, "2")
		if over := l.over("third"); over < 0 {
			t.Errorf("one that a list does not have is over for %v", over)
		}
		if names := l.ended(0); len(names) > 0 {
			t.Errorf("there are still %q", names)
		}
	})
}

// Nothing is known before the first list, and before the first renewal.
func TestLeasesUnknown(t *testing.T) {
	l := newLeases(func() {})
	l.renewed(nil)
	if over := l.over("other"); over >= 0 {
		t.Errorf("before the first list it is over for %v", over)
	}
	l = newLeases(func() {})
	_ = l.Replace(nil, "1")
	if over := l.over("other"); over >= 0 {
		t.Errorf("before the first renewal it is over for %v", over)
	}
}
