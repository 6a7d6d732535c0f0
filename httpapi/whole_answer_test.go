package httpapi_test

import (
	"bufio"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// A client has its answer before the log has its line, from every door.
func TestRequestLogIsWrittenAfterTheAnswer(t *testing.T) {
	log := slowLog{make(chan struct{})}
	opts := options(nil)
	opts.Log = slog.New(slog.NewTextHandler(log, nil))
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "42")
		_, _ = io.WriteString(w, "\n")
	})}
	conn := newServerOf(t, httpapi.NewServer(opts)).dial()
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for path, want := range map[string]int{"/health": http.StatusOK, "/v1/unknown": http.StatusNotFound, "/mounted": http.StatusAccepted} {
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != want || response.ContentLength != int64(len(body)) || len(body) == 0 {
			t.Errorf("%s: %d, %q of %d bytes, %v", path, response.StatusCode, body, response.ContentLength, err)
		}
		log.read <- struct{}{}
	}
}

// slowLog waits with each line until it is read.
type slowLog struct{ read chan struct{} }

func (l slowLog) Write(line []byte) (int, error) {
	<-l.read
	return len(line), nil
}
