package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOursTellsRefusalsFromWrongAnswers(t *testing.T) {
	for _, test := range []struct {
		name, body     string
		status         int
		refused, wrong bool
	}{
		{name: "right", status: http.StatusOK, body: `{"stdout":"42\n","stderr":"","exit_code":0}`},
		{name: "wrong", status: http.StatusOK, body: `{"stdout":"41\n","stderr":"","exit_code":0}`, wrong: true},
		{name: "failed", status: http.StatusOK, body: `{"stdout":"42\n","stderr":"","exit_code":1}`, wrong: true},
		{name: "timed out", status: http.StatusOK, body: `{"stdout":"42\n","exit_code":null}`, wrong: true},
		{name: "no JSON", status: http.StatusOK, body: `42`, wrong: true},
		{name: "busy", status: http.StatusTooManyRequests, body: `{"detail":"busy"}`, refused: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			}))
			defer fake.Close()
			_, err := newOurs(strings.TrimPrefix(fake.URL, "http://")).plain().run(t.Context(), programs()[0])
			var refused *refusal
			if errors.As(err, &refused) != test.refused || errors.Is(err, errWrong) != test.wrong || (err != nil) != (test.refused || test.wrong) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFollowLog(t *testing.T) {
	const log = `{"level":"INFO","msg":"listening","address":"127.0.0.1:4711","instance":"abc"}
{"level":"INFO","msg":"request","status":200}
{"level":"WARN","msg":"trouble"}
vivarium: no JSON
{"level":"INFO","msg":"listening","address":"127.0.0.1:1"}
`
	started := make(chan listening, 1)
	var told strings.Builder
	followLog(strings.NewReader(log), started, &told)
	if got := <-started; got != (listening{"127.0.0.1:4711", "abc"}) {
		t.Errorf("started %+v", got)
	}
	want := "server: {\"level\":\"WARN\",\"msg\":\"trouble\"}\nserver: vivarium: no JSON\n"
	if told.String() != want {
		t.Errorf("told %q, want %q", told.String(), want)
	}
}
