package kubernetes

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

func TestStrays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Backend{id: "me", leases: newTestLeases(time.Now()), held: map[string]bool{"held": true}}
		_ = b.leases.Update(leaseOf("late", time.Now()))
		pass(b.leases, 50, "other", "late")
		pass(b.leases, 70, "other") // the Lease of late is over for 40 s, that of gone was released 120 s ago
		now := time.Now()
		in := func(d time.Duration) execution.SessionInfo { return execution.SessionInfo{Expires: now.Add(d)} }
		for name, test := range map[string]struct {
			pod  pod
			want bool
		}{
			"a blank":                            {pod{state: stateFree}, false},
			"a blank without a key":              {pod{state: stateFree, ended: true}, true},
			"ours and in use":                    {pod{state: stateRun, holder: "me", uid: "held"}, false},
			"ours, in use and ended":             {pod{state: stateRun, holder: "me", uid: "held", ended: true}, false},
			"ours and not in use":                {pod{state: stateRun, holder: "me", uid: "lost"}, true},
			"of a server that is alive":          {pod{state: stateRun, holder: "other"}, false},
			"of one whose Lease is just over":    {pod{state: stateRun, holder: "late"}, false},
			"of a server that is gone":           {pod{state: stateRun, holder: "gone"}, true},
			"a session of ours":                  {pod{state: stateSession, holder: "me", session: in(time.Hour)}, false},
			"a session of a server that is gone": {pod{state: stateSession, holder: "gone", session: in(time.Hour)}, false},
			"a session that is just over":        {pod{state: stateSession, holder: "me", uid: "held", session: in(-20 * time.Second)}, false},
			"a session that is over":             {pod{state: stateSession, holder: "other", session: in(-time.Minute)}, true},
			"a session that has ended":           {pod{state: stateSession, holder: "other", session: in(time.Hour), ended: true}, true},
		} {
			if got := b.isStray(&test.pod, now); got != test.want {
				t.Errorf("%s: stray is %v", name, got)
			}
		}
		pass(b.leases, 30, "other")
		if !b.isStray(&pod{state: stateRun, holder: "late"}, time.Now()) {
			t.Error("after 70 s a server whose Lease is over still has its pods")
		}
	})
}
