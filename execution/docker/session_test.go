package docker_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

func TestSessions(t *testing.T) {
	e := newEngine(t)
	strange := session("them", time.Hour)
	strange["vivarium.expires"] = "soon"
	owned := session("them", time.Hour)
	owned["vivarium.owner"], owned["vivarium.session"] = "anna", "def"
	e.handle(list, say(http.StatusOK, []any{ // whatever the filters are
		listed("b", "running", time.Hour, strange), listed("a", "running", time.Hour, session("them", time.Hour)),
		listed("c", "running", time.Hour, owned),
	}))
	b := e.backend(docker.Options{})
	asked := func(labels string) {
		t.Helper()
		if filters := e.query(list, "filters"); filters != `{"label":{`+labels+`},"status":{"paused":true,"running":true}}` {
			t.Errorf("the filters are %s", filters)
		}
	}
	one, err := b.Find(t.Context(), "abc")
	if err != nil || one.ID != "abc" || !one.Expires.Equal(time.UnixMilli(1_700_000_000_123)) {
		t.Errorf("the session is %v, %v", one, err)
	}
	asked(`"vivarium.session=abc":true`)
	for owner, labels := range map[execution.Owner]string{"": "", "anna": `"vivarium.owner=anna":true,`} {
		found, err := b.Owned(t.Context(), owner)
		if err != nil || len(found) != 1 || found[0].Owner != owner {
			t.Errorf("the sessions of %q are %v, %v", owner, found, err)
		}
		asked(labels + `"vivarium.session":true`)
	}
	if own, all, err := b.Count(t.Context(), "anna", nil); own != 1 || all != 2 || err != nil {
		t.Errorf("there are %d of %d, %v", own, all, err)
	}
	asked(`"vivarium.session":true`)
	if own, all, err := b.Count(t.Context(), "anna", []string{"def"}); own != 0 || all != 1 || err != nil {
		t.Errorf("without one there are %d of %d, %v", own, all, err)
	}
	if asked := len(e.requests()); asked != 5 {
		t.Errorf("the engine was asked %d times for five answers", asked)
	}
}

func TestAttachToNone(t *testing.T) {
	e := newEngine(t)
	e.handle(list, say(http.StatusOK, []any{}))
	b := e.backend(docker.Options{})
	_, err := b.Attach(t.Context(), "abc")
	if err == nil || execution.AsError(err).Code != execution.NotFound {
		t.Errorf("attaching gives %v", err)
	}
	if _, err := b.Find(t.Context(), "abc"); err == nil || execution.AsError(err).Code != execution.NotFound {
		t.Errorf("finding gives %v", err)
	}
	if filters := e.query(list, "filters"); filters != `{"label":{"vivarium.session=abc":true},"status":{"paused":true,"running":true}}` {
		t.Errorf("the filters are %s", filters)
	}
	if err := b.End(t.Context(), "abc"); err != nil {
		t.Errorf("ending gives %v", err)
	}
}

func TestEndSession(t *testing.T) {
	e := newEngine(t)
	e.handle(list, say(http.StatusOK, []any{listed("a", "running", time.Hour, session("them", time.Hour))}))
	e.handle("DELETE /containers/{id}", quiet)
	if err := e.backend(docker.Options{}).End(t.Context(), "abc"); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(e.requests(), "DELETE /containers/a") {
		t.Errorf("the engine was asked %v", e.requests())
	}
	e.handle("DELETE /containers/a", fail(http.StatusInternalServerError, "device busy"))
	unavailable(t, e.backend(docker.Options{}).End(t.Context(), "abc"), refused, "remove: Error response from daemon: device busy")
}

// A session's container does not end with the connection. Its labels have its owner and
// its end.
func TestStartOfASession(t *testing.T) {
	e := newEngine(t)
	bodies := make(chan map[string]any, 1)
	e.handle(create, func(w http.ResponseWriter, r *http.Request) {
		var asked map[string]any
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		bodies <- asked
		fail(http.StatusTeapot, "enough")(w, r)
	})
	expires := time.UnixMilli(1_700_000_000_123)
	_, err := e.backend(docker.Options{}).Start(t.Context(), execution.Spec{
		Settings: execution.Settings{Isolation: execution.IsolationSession},
		Session:  execution.SessionInfo{ID: "abc", Owner: "anna", Expires: expires},
	})
	if err == nil {
		t.Fatal("no error")
	}
	asked := <-bodies
	labels := asked["Labels"].(map[string]any)
	if asked["OpenStdin"] != true || asked["StdinOnce"] != false {
		t.Errorf("stdin: open %v, once %v", asked["OpenStdin"], asked["StdinOnce"])
	}
	if labels["vivarium.session"] != "abc" || labels["vivarium.expires"] != "1700000000123" || labels["vivarium.deadline"] != "1700000030" ||
		labels["vivarium.owner"] != "anna" {
		t.Errorf("the labels are %v", labels)
	}
}

// A renewed session is found by the name of its container.
func TestAnnounce(t *testing.T) {
	e := newEngine(t)
	entry := listed("a", "running", time.Hour, session("them", time.Hour))
	e.handle(list, func(w http.ResponseWriter, r *http.Request) { say(http.StatusOK, []any{entry})(w, r) })
	refuse := false
	e.handle("POST /containers/{id}/rename", func(w http.ResponseWriter, r *http.Request) {
		if refuse {
			fail(http.StatusInternalServerError, "no")(w, r)
			return
		}
		name := "/" + r.URL.Query().Get("name")
		if names, _ := entry["Names"].([]string); slices.Contains(names, name) {
			fail(http.StatusBadRequest, "Renaming a container with the same name as its current name")(w, r)
			return
		}
		entry["Names"] = []string{name}
		quiet(w, r)
	})
	b := e.backend(docker.Options{})
	end := time.UnixMilli(1_800_000_000_123)
	for _, step := range []execution.SessionInfo{
		{ID: "abc", Expires: end, Idle: time.Minute},
		{ID: "abc", Expires: end, Idle: time.Minute},
		{ID: "abc", Expires: end.Add(time.Hour), Idle: time.Hour},
		{ID: "abc", Expires: end.Add(time.Second), Idle: time.Second},
	} {
		if err := b.Announce(t.Context(), step); err != nil {
			t.Fatal(err)
		}
		found, err := b.Find(t.Context(), "abc")
		if err != nil || !found.Expires.Equal(step.Expires) || found.Idle != step.Idle {
			t.Errorf("announced as %+v, it is %+v, %v", step, found, err)
		}
	}
	refuse = true
	if err := b.Announce(t.Context(), execution.SessionInfo{ID: "abc", Expires: end.Add(time.Hour)}); err == nil {
		t.Error("no error")
	}
}

func TestAnnounceOfNone(t *testing.T) {
	e := newEngine(t)
	e.handle(list, say(http.StatusOK, []any{}))
	err := e.backend(docker.Options{}).Announce(t.Context(), execution.SessionInfo{ID: "abc"})
	if err == nil || execution.AsError(err).Code != execution.NotFound {
		t.Errorf("announcing gives %v", err)
	}
}
