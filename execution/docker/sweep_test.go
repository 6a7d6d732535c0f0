package docker_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

const list = "GET /containers/json"

// listed returns a container as the engine lists it.
func listed(id, state string, age time.Duration, labels map[string]string) map[string]any {
	return map[string]any{"Id": id, "State": state, "Created": time.Now().Add(-age).Unix(), "Labels": labels}
}

// by returns the labels of a container that some server made.
func by(instance string, left time.Duration) map[string]string {
	return map[string]string{
		"vivarium.instance": instance, "vivarium.deadline": strconv.FormatInt(time.Now().Add(left).Unix(), 10),
	}
}

// session returns those of a session's.
func session(instance string, left time.Duration) map[string]string {
	labels := by(instance, left)
	labels["vivarium.session"] = "abc"
	labels["vivarium.expires"] = strconv.FormatInt(1_700_000_000_123, 10)
	return labels
}

// renewed returns the container of a session whose name says when it ends.
func renewed(instance string, deadline, left time.Duration) map[string]any {
	c := listed("c", "running", 2*time.Hour, session(instance, deadline))
	c["Names"] = []string{"/vivarium-abc-" + strconv.FormatInt(time.Now().Add(left).UnixMilli(), 10) + "-900000"}
	return c
}

func TestSweepRemovesStraysAlone(t *testing.T) {
	for name, test := range map[string]struct {
		container func(us string) map[string]any
		stray     bool
	}{
		"another's, running":           {func(string) map[string]any { return listed("c", "running", time.Hour, by("them", time.Hour)) }, false},
		"another's, past its deadline": {func(string) map[string]any { return listed("c", "running", time.Hour, by("them", -time.Minute)) }, true},
		"another's, with a broken deadline": {func(string) map[string]any {
			return listed("c", "running", time.Hour, map[string]string{"vivarium.instance": "them", "vivarium.deadline": "soon"})
		}, true},
		"another's, without a deadline": {func(string) map[string]any {
			return listed("c", "running", time.Hour, map[string]string{"vivarium.instance": "them"})
		}, true},
		"another's, never started":     {func(string) map[string]any { return listed("c", "created", time.Hour, by("them", time.Hour)) }, true},
		"another's, ended":             {func(string) map[string]any { return listed("c", "exited", time.Hour, by("them", time.Hour)) }, true},
		"another's, dead":              {func(string) map[string]any { return listed("c", "dead", time.Hour, by("them", time.Hour)) }, true},
		"another's, being made":        {func(string) map[string]any { return listed("c", "created", 10*time.Second, by("them", time.Hour)) }, false},
		"another's, young and overdue": {func(string) map[string]any { return listed("c", "running", 10*time.Second, by("them", -time.Hour)) }, false},
		"ours, lost":                   {func(us string) map[string]any { return listed("c", "running", time.Hour, by(us, time.Hour)) }, true},
		"ours, being made":             {func(us string) map[string]any { return listed("c", "created", 10*time.Second, by(us, time.Hour)) }, false},
		"a session without a server":   {func(us string) map[string]any { return listed("c", "running", time.Hour, session(us, time.Hour)) }, false},
		"a session, overdue":           {func(us string) map[string]any { return listed("c", "running", time.Hour, session(us, -time.Hour)) }, true},
		"a session, renewed, overdue":  {func(us string) map[string]any { return renewed(us, time.Hour, -time.Minute) }, true},
		"a session, renewed":           {func(us string) map[string]any { return renewed(us, -time.Hour, time.Second) }, false},
		"a session, ended":             {func(us string) map[string]any { return listed("c", "exited", time.Hour, session(us, time.Hour)) }, true},
		"a session, paused":            {func(us string) map[string]any { return listed("c", "paused", time.Hour, session(us, time.Hour)) }, false},
		"a session, paused, overdue":   {func(us string) map[string]any { return listed("c", "paused", time.Hour, session(us, -time.Hour)) }, true},
		"another's, paused":            {func(string) map[string]any { return listed("c", "paused", time.Hour, by("them", time.Hour)) }, false},
		"from the future":              {func(us string) map[string]any { return listed("c", "exited", -time.Hour, by(us, time.Hour)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			b := e.backend(docker.Options{})
			e.handle(list, say(http.StatusOK, []any{test.container(b.InstanceID())}))
			e.handle("DELETE /containers/{id}", quiet)
			removed, err := b.Sweep(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			if test.stray {
				want = 1
			}
			if removed != want || slices.Contains(e.requests(), "DELETE /containers/c") != test.stray {
				t.Errorf("%d removed; the engine was asked %v", removed, e.requests())
			}
			if all := e.query(list, "all"); all != "1" {
				t.Errorf("those that do not run are left out: all=%q", all)
			}
			if filters := e.query(list, "filters"); filters != `{"label":{"vivarium.instance":true}}` {
				t.Errorf("the filters are %s", filters)
			}
		})
	}
}

// A container that this server holds is left alone, and is not once it is
// destroyed.
func TestSweepLeavesWhatIsHeld(t *testing.T) {
	e := newEngine(t)
	e.containers(obedient)
	b := e.backend(docker.Options{})
	e.handle(list, say(http.StatusOK, []any{listed(containerID, "running", time.Hour, by(b.InstanceID(), -time.Hour))}))
	e.handle("DELETE /containers/{id}", quiet)
	i := start(t, b)
	if removed, err := b.Sweep(t.Context()); removed != 0 || err != nil {
		t.Errorf("%d removed, %v", removed, err)
	}
	go func() {
		buffer := make([]byte, 1)
		_, _ = i.Read(buffer)
	}()
	if err := i.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if removed, err := b.Sweep(t.Context()); removed != 1 || err != nil {
		t.Errorf("afterwards %d removed, %v", removed, err)
	}
}

// A session's container is left alone while it is made, which may take longer
// than the sweep waits. Once it runs, its deadline alone counts.
func TestSweepLeavesSessionsThatStart(t *testing.T) {
	e := newEngine(t)
	e.containers(obedient)
	b := e.backend(docker.Options{})
	var state atomic.Value
	state.Store("created")
	e.handle(list, func(w http.ResponseWriter, r *http.Request) {
		say(http.StatusOK, []any{listed(containerID, state.Load().(string), time.Minute, session(b.InstanceID(), -time.Minute))})(w, r)
	})
	e.handle("DELETE /containers/{id}", quiet)
	e.handle("POST "+path("/start"), func(w http.ResponseWriter, r *http.Request) {
		if removed, err := b.Sweep(t.Context()); removed != 0 || err != nil {
			t.Errorf("before the start %d removed, %v", removed, err)
		}
		state.Store("running")
		quiet(w, r)
	})
	i, err := b.Start(t.Context(), execution.Spec{Settings: execution.Settings{Isolation: execution.IsolationSession}})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Detach()
	if removed, err := b.Sweep(t.Context()); removed != 1 || err != nil {
		t.Errorf("past its deadline %d removed, %v", removed, err)
	}
}

// One failure does not keep the sweep from the rest.
func TestSweepGoesOn(t *testing.T) {
	e := newEngine(t)
	e.handle(list, say(http.StatusOK, []any{
		listed("a", "exited", time.Hour, by("them", 0)), listed("stuck", "exited", time.Hour, by("them", 0)),
		listed("gone", "exited", time.Hour, by("them", 0)), listed("b", "exited", time.Hour, by("them", 0)),
	}))
	e.handle("DELETE /containers/{id}", quiet)
	e.handle("DELETE /containers/stuck", fail(http.StatusInternalServerError, "device busy"))
	e.handle("DELETE /containers/gone", fail(http.StatusNotFound, "No such container"))
	removed, err := e.backend(docker.Options{}).Sweep(t.Context())
	if removed != 3 || err == nil || !strings.Contains(err.Error(), "remove stuck: Error response from daemon: device busy") {
		t.Errorf("%d removed, %v", removed, err)
	}
}

func TestSweepWithoutAList(t *testing.T) {
	e := newEngine(t)
	e.handle(list, fail(http.StatusInternalServerError, "no"))
	removed, err := e.backend(docker.Options{}).Sweep(t.Context())
	if removed != 0 {
		t.Errorf("%d removed", removed)
	}
	unavailable(t, err, refused, "list: Error response from daemon: no")
}
