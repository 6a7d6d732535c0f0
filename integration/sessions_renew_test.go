package integration

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A session lives while it is used, and ends when it is not, or at its greatest age.
func TestSessionLivesWhileUsed(t *testing.T) {
	server := startServer(t, "POOL_SIZE=0", "SESSION_MAX_AGE_SEC=15")
	s := startSession(t, server, request{"ttl_seconds": 4})
	s.python(t, "x = 1")
	// A call longer than the idle time is not cut short.
	program{stdout: "1\n"}.check(t, s.python(t, "import time\ntime.sleep(5)\nx"))
	program{stdout: "1\n"}.check(t, s.python(t, "x"))

	// Another idle time counts at once, and for the next server too.
	status, text := server.send(t, http.MethodPatch, s.path(""), "application/json", strings.NewReader(`{"ttl_seconds": 3600}`))
	var extended struct {
		ExpiresAt float64 `json:"expires_at"`
	}
	if err := json.Unmarshal([]byte(text), &extended); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if left := extended.ExpiresAt - float64(time.Now().UnixMilli())/1e3; left > 16 {
		t.Errorf("%.1f s are left", left)
	}
	if err := server.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.wait() // it was killed
	shared.host.bury(server.instance)
	s.server = startServer(t, "POOL_SIZE=0")
	var list struct {
		Sessions []struct {
			SessionID string  `json:"session_id"`
			ExpiresAt float64 `json:"expires_at"`
		}
	}
	if err := getJSON(t, s.server.url+"/v1/sessions", &list); err != nil {
		t.Fatal(err)
	}
	for _, found := range list.Sessions {
		if found.SessionID == s.id && (found.ExpiresAt < extended.ExpiresAt || found.ExpiresAt > extended.ExpiresAt+2) {
			t.Errorf("the next server expects it to end at %f, not %f", found.ExpiresAt, extended.ExpiresAt)
		}
	}
	program{stdout: "1\n"}.check(t, s.python(t, "x"))
	if !poll(func() bool { return len(sessionSandboxes(t, s.id)) == 0 }) {
		t.Fatal("it does not end")
	}
	if late := float64(time.Now().UnixMilli())/1e3 - extended.ExpiresAt; late > 5 || late < -2 {
		t.Errorf("it ended %.1f s after its greatest age", late)
	}
}
