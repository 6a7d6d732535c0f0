package runner_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

func startSession(t *testing.T, i *instance) execution.Session {
	t.Helper()
	session, err := hostOf(i).Start(t.Context(), execution.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Detach)
	return session
}

// A session that freezes before a call begins costs 2 s. The call is called off, so
// that it can be made again without being made twice.
func TestFrozenSessionBeforeTheStart(t *testing.T) {
	for kind, call := range map[string]call{"python": runPython, "bash": runBash, "read": readFile, "write": writeFiles} {
		synctest.Test(t, func(t *testing.T) {
			queued := make(chan byte, 100)
			session := startSession(t, start(t, func(s *supervisor) {
				s.say('R', greeting+"isolation=session\n")
				defer close(queued)
				for { // it is frozen, but its pipe has room
					f, err := readFrame(s.conn)
					if err != nil {
						return
					}
					queued <- f.kind
				}
			}))
			go func() { <-session.Done(); session.Detach() }() // as the sessions' manager does
			began := time.Now()
			_, err := call(t.Context(), session)
			var domain *execution.Error
			if !errors.As(err, &domain) || domain.Code != execution.Unavailable {
				t.Errorf("%s returns %v", kind, err)
			}
			if took := time.Since(began); took > mostSilence {
				t.Errorf("%s takes %v", kind, took)
			}
			if session.Usable() {
				t.Error("the connection is usable")
			}
			last := byte(0)
			for frame := range queued {
				last = frame
			}
			if runs := kind == "python" || kind == "bash"; runs && last != 'K' {
				t.Errorf("%s: the last frame is %q", kind, last)
			}
		})
	}
}

// What was sent whole to a session that reads no more may have begun.
func TestFrozenSessionThatCannotBeCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session := inSession(t, func(s *supervisor) { s.job(); s.stop() })
		result, err := session.RunPython(t.Context(), request, limits)
		if err != nil || result.End.Reason != execution.SandboxLost || !strings.Contains(result.End.Message, "it may have run") {
			t.Errorf("%+v, %v", result, err)
		}
	})
}

func TestFrozenSessionWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, func(s *supervisor) {
			s.say('R', greeting+"isolation=session\n")
			s.job()
			s.say('A', "")
			s.say('O', "out")
			s.stop()
		})
		session := startSession(t, i)
		began := time.Now()
		slow := request
		slow.Timeout = time.Minute
		result, err := session.RunPython(t.Context(), slow, limits)
		if err != nil || result.End.Reason != execution.SandboxLost || result.Stdout != "out" ||
			!strings.Contains(result.End.Message, "does not answer") {
			t.Errorf("%+v, %v", result, err)
		}
		if took := time.Since(began); took > mostSilence {
			t.Errorf("it takes %v", took)
		}
		<-session.Done()
		if i.destroyed.Load() != 0 {
			t.Error("the session was destroyed, which its client alone does")
		}
	})
}

// Between calls nothing is expected of a session.
func TestSessionMayFreezeBetweenCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session := inSession(t, func(s *supervisor) {
			s.serve(fine, "one")
			time.Sleep(time.Hour)
			s.serve(fine, "two")
		})
		for range 2 {
			if _, err := session.RunPython(t.Context(), request, limits); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if !session.Usable() {
				t.Error("it was given up")
			}
		}
	})
}

func TestAttachToAFrozenSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newDeafInstance(t, func(*supervisor) {})
		began := time.Now()
		_, err := hostOf(i).Attach(t.Context(), "any")
		if err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("the error is %v", err)
		}
		if took := time.Since(began); took > mostSilence {
			t.Errorf("it takes %v", took)
		}
	})
}

// greets answers a server that comes to a session, with more behind that.
func (s *supervisor) greets(more string) {
	var b [1]byte
	for b[0] != 'Y' {
		if _, err := io.ReadFull(s.conn, b[:]); err != nil {
			return
		}
	}
	var header [4]byte
	_, _ = io.ReadFull(s.conn, header[:])
	nonce := make([]byte, header[3])
	_, _ = io.ReadFull(s.conn, nonce)
	s.send(string(frame{'Y', string(nonce)}.bytes()) + more)
}

// A server may have to wait for a call of the last one's, which shows life.
func TestAttachToABusySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, err := hostOf(start(t, func(s *supervisor) {
			for range 10 {
				time.Sleep(500 * time.Millisecond)
				s.say('P', "")
			}
			s.greets("P\x00\x00\x00\x00")
		})).Attach(t.Context(), "any")
		if err != nil {
			t.Fatal(err)
		}
		session.Detach()
	})
}

// A session of an earlier version of the server answers no pings. It has the old
// deadlines.
func TestSessionOfAnEarlierVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, err := hostOf(start(t, func(s *supervisor) {
			s.greets("")
			for kind := byte(0); kind != 'G'; {
				f, err := readFrame(s.conn)
				if err != nil {
					return
				}
				kind = f.kind
			}
			go func() { _, _ = io.Copy(io.Discard, s.conn) }()
			s.say('A', "")
			time.Sleep(time.Minute)
			s.say('X', fine)
			s.say('Z', "")
		})).Attach(t.Context(), "any")
		if err != nil {
			t.Fatal(err)
		}
		slow := request
		slow.Timeout = time.Minute
		if result, err := session.RunPython(t.Context(), slow, limits); err != nil || result.Failed() {
			t.Errorf("%+v, %v", result, err)
		}
		session.Detach()
	})
}

// One that does not read is not waited for, and its connection is given up.
func TestSessionSetEndUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, err := hostOf(newDeafInstance(t, func(s *supervisor) { s.say('R', greeting+"isolation=session\n") })).Start(t.Context(), execution.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Detach()
		began := time.Now()
		if err := session.SetEnd(t.Context(), began); err == nil || time.Since(began) != time.Second || session.Usable() {
			t.Errorf("it returns %v after %v, usable: %v", err, time.Since(began), session.Usable())
		}
	})
}
