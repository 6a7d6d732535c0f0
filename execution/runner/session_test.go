package runner_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
	python "github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// sessionBackend has one instance.
type sessionBackend struct {
	execution.SessionBackend
	instance execution.Instance
}

func (b sessionBackend) Start(context.Context, execution.Spec) (execution.Instance, error) {
	return b.instance, nil
}

func (b sessionBackend) Attach(context.Context, string) (execution.Instance, error) {
	return b.instance, nil
}

func hostOf(i execution.Instance) *runner.Sessions {
	return runner.NewSessions(sessionBackend{instance: i}, slog.New(slog.DiscardHandler))
}

// inSession opens a session whose supervisor follows a script once it is ready.
func inSession(t *testing.T, script func(s *supervisor)) execution.Session {
	t.Helper()
	session, err := hostOf(newInstance(t, func(s *supervisor) {
		s.say('R', greeting+"isolation=session\n")
		script(s)
	})).Start(t.Context(), execution.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Detach)
	return session
}

// call makes a call of a session.
type call func(ctx context.Context, session execution.Session) (*execution.Result, error)

func runPython(ctx context.Context, session execution.Session) (*execution.Result, error) {
	return session.RunPython(ctx, request, limits)
}

func runBash(ctx context.Context, session execution.Session) (*execution.Result, error) {
	return session.RunBash(ctx, execution.Command{Command: "true", Timeout: 2 * time.Second}, limits)
}

func readFile(ctx context.Context, session execution.Session) (*execution.Result, error) {
	return session.ReadFile(ctx, execution.ReadRequest{Path: "x.txt"}, limits)
}

// writeFiles writes two files.
func writeFiles(ctx context.Context, session execution.Session) (*execution.Result, error) {
	files := []execution.Input{execution.Inline("a", nil), execution.Inline("b/c", nil)}
	return nil, session.WriteFiles(ctx, execution.WriteRequest{Files: files}, limits)
}

// serve answers one call.
func (s *supervisor) serve(facts, stdout string) []frame {
	frames := s.job()
	s.say('A', "")
	s.say('O', stdout)
	s.say('X', facts)
	s.say('Z', "")
	return frames
}

func TestSessionCallsSendTheEnvironment(t *testing.T) {
	jobs := make(chan []frame, 2)
	session := inSession(t, func(s *supervisor) {
		jobs <- s.serve(fine, "")
		jobs <- s.serve(fine, "")
	})
	env, args := map[string]string{"A": "1"}, []string{"x"}
	cell := execution.Request{Code: "pass", Env: env, Args: args, Timeout: time.Second}
	if _, err := session.RunPython(t.Context(), cell, limits); err != nil {
		t.Fatal(err)
	}
	command := execution.Command{Command: "true", Env: env, Args: args, Timeout: time.Second}
	if _, err := session.RunBash(t.Context(), command, limits); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		want := []frame{{'V', "A=1\x00"}, {'W', "x\x00"}}
		if diff := cmp.Diff(want, (<-jobs)[2:], cmp.AllowUnexported(frame{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestSessionCalls(t *testing.T) {
	jobs := make(chan []frame, 3)
	session := inSession(t, func(s *supervisor) {
		jobs <- s.serve(fine, "one")
		jobs <- s.serve(fine+"state_lost=1\n", "two")
		if f := <-s.heard; f.kind != 'H' {
			t.Errorf("the supervisor hears %q when it has told that the state is lost", f.kind)
		}
		jobs <- s.serve(strings.Replace(fine, "timed_out=0", "timed_out=1", 1), "three")
	})
	for i, want := range []struct {
		call    call
		op      string
		stdout  string
		lost    bool
		message string
	}{
		{runPython, "op=0", "one", false, ""},
		{runBash, "op=1", "two", true, "variables, imports and threads are lost"},
		{runPython, "op=0", "three", false, "variables are kept"},
	} {
		result, err := want.call(t.Context(), session)
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		if result.Stdout != want.stdout || result.StateLost != want.lost || !strings.Contains(result.End.Message, want.message) {
			t.Errorf("call %d: %+v", i, result)
		}
		head := (<-jobs)[0]
		if !strings.Contains(head.payload, want.op+"\n") {
			t.Errorf("call %d: the job begins with %q, without %s", i, head.payload, want.op)
		}
	}
	if !session.Usable() {
		t.Error("the session is not usable after three calls in good order")
	}
}

// Why an interpreter was ended is told, where it is known, even if the call that
// tells of it has come well through.
func TestSessionLostForMemory(t *testing.T) {
	for name, test := range map[string]struct {
		facts string
		want  bool
	}{
		"before the call":     {fine + "state_lost=1\nmemory_kills_before=2\n", true},
		"during the call":     {strings.Replace(fine, "memory_kills=0", "memory_kills=1", 1) + "state_lost=1\nmemory_kills_before=0\n", true},
		"it has ended itself": {fine + "state_lost=1\nmemory_kills_before=0\n", false},
		"nothing is lost":     {fine + "state_lost=0\nmemory_kills_before=2\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			session := inSession(t, func(s *supervisor) { s.serve(test.facts, "") })
			result, err := session.RunPython(t.Context(), request, limits)
			if err != nil || result.End.Reason != execution.Exited {
				t.Fatalf("%+v, %v", result, err)
			}
			if told := strings.Contains(result.End.Message, "more memory"); told != test.want {
				t.Errorf("the message is %q", result.End.Message)
			}
		})
	}
}

// A refusal leaves the session as it is, and says what is wrong in the domain's
// words.
func TestSessionRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		call    call
		errno   syscall.Errno
		code    execution.Code
		message string
	}{
		"no such file":     {readFile, syscall.ENOENT, execution.NotFound, "File 'x.txt' not found in the session"},
		"below a file":     {readFile, syscall.ENOTDIR, execution.NotFound, "File 'x.txt' not found in the session"},
		"a link":           {readFile, syscall.ELOOP, execution.Invalid, "path cannot be used: a link"},
		"too large":        {readFile, syscall.EFBIG, execution.TooLarge, "does not fit"},
		"a folder":         {writeFiles, syscall.EISDIR, execution.Invalid, `files[1].path cannot be used`},
		"no room":          {writeFiles, syscall.ENOSPC, execution.TooLarge, "does not fit in the workspace of 1 MB"},
		"too many":         {runBash, syscall.EAGAIN, execution.Unavailable, "no room for another process"},
		"something else":   {runBash, syscall.EIO, execution.Internal, "internal error"},
		"nothing sensible": {runPython, 0, execution.Internal, "internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			session := inSession(t, func(s *supervisor) {
				s.job()
				s.say('!', "errno="+strconv.Itoa(int(c.errno))+"\nmessage=told\nfile=1\n")
				s.serve(fine, "still here")
			})
			_, err := c.call(t.Context(), session)
			domain := execution.AsError(err)
			if domain.Code != c.code || !strings.Contains(domain.Explain(), c.message) {
				t.Errorf("the error is %q (%s), not %q (%s)", domain.Explain(), domain.Code, c.message, c.code)
			}
			result, err := session.RunPython(t.Context(), request, limits)
			if err != nil || result.Stdout != "still here" {
				t.Errorf("the next call gives %+v, %v", result, err)
			}
		})
	}
}

// A server that comes skips whatever the last one has left half said, on both
// sides of the stream.
func TestSessionResumes(t *testing.T) {
	zeros := make(chan int, 1)
	host := hostOf(start(t, func(s *supervisor) {
		s.send("O\x00\x00\xff\xffthe rest of a frame")
		s.say('Y', "another nonce")
		count := 0
		var header [5]byte
		for {
			if _, err := io.ReadFull(s.conn, header[:1]); err != nil {
				return
			}
			if header[0] != 0 {
				break
			}
			count++
		}
		zeros <- count
		if _, err := io.ReadFull(s.conn, header[1:]); err != nil {
			return
		}
		nonce := make([]byte, header[4])
		if _, err := io.ReadFull(s.conn, nonce); err != nil {
			return
		}
		s.send("Y\x00Y")
		s.say('Y', string(nonce))
		s.say('P', "")
		go s.listen()
		for _, f := range s.serve(fine, "found again") {
			if !strings.HasPrefix(f.payload, string(nonce[:8])) {
				t.Errorf("frame %q does not begin with the nonce's first bytes, but %.20q", f.kind, f.payload)
			}
		}
	}))
	session, err := host.Attach(t.Context(), "any")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Detach()
	if count := <-zeros; count < 5+64<<10 {
		t.Errorf("the server sent %d zeros, fewer than a frame may lack", count)
	}
	result, err := session.RunPython(t.Context(), request, limits)
	if err != nil || result.Stdout != "found again" {
		t.Errorf("the call gives %+v, %v", result, err)
	}
}

// A session that another server has taken over is of no use to this one.
func TestSessionTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session := inSession(t, func(s *supervisor) { s.say('Y', "somebody else's") })
		synctest.Wait()
		if session.Usable() {
			t.Error("the session is usable")
		}
		_, err := session.RunPython(t.Context(), request, limits)
		if !errors.Is(err, execution.ErrNotStarted) {
			t.Errorf("the call gives %v", err)
		}
		session.Detach()
	})
}

// A connection over which another server's answers come is given up at once: as
// long as nobody reads it, the engine gives that server nothing either.
func TestSessionTakenOverWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := make(chan struct{})
		session := inSession(t, func(s *supervisor) {
			s.serve(fine, "mine")
			time.Sleep(time.Second)
			for range 100 {
				s.say('O', "somebody else's")
			}
			close(said)
		})
		if _, err := session.RunPython(t.Context(), request, limits); err != nil {
			t.Fatal(err)
		}
		<-said
		<-session.Done()
		if session.Usable() {
			t.Error("the session is usable")
		}
	})
}

// Nor is one that is taken over while a file's source keeps a job from being sent:
// the connection is given up, and nothing more is sent.
func TestSessionTakenOverWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan struct{})
		session := inSession(t, func(s *supervisor) {
			<-asked
			for range 100 {
				s.say('O', "somebody else's")
			}
			for f := range s.heard {
				t.Errorf("the supervisor hears %q", f.kind)
			}
		})
		upload := execution.WriteRequest{Files: []execution.Input{{Path: "a", Size: 10, Source: source(func() (io.Reader, error) {
			close(asked)
			<-session.Done()
			return strings.NewReader("0123456789"), nil
		})}}}
		if err := session.WriteFiles(t.Context(), upload, limits); !errors.Is(err, execution.ErrNotStarted) {
			t.Errorf("the call gives %v", err)
		}
	})
}

// A calling off that is under way is waited for: a late one would be for the
// next call.
func TestSessionCallsOffInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		i := start(t, func(s *supervisor) {
			s.say('R', greeting+"isolation=session\n")
			for f, err := readFrame(s.conn); f.kind != 'G' && err == nil; f, err = readFrame(s.conn) {
				_ = f // of the job
			}
			s.say('A', "")
			time.Sleep(time.Second) // the job has been sent
			leave()
			s.say('X', fine)
			s.say('Z', "")
			time.Sleep(time.Second)
			f, err := readFrame(s.conn)
			for f.kind == 'P' {
				f, err = readFrame(s.conn)
			}
			if f.kind != 'K' {
				t.Errorf("the supervisor hears %q, %v", f.kind, err)
			}
		})
		session, err := hostOf(i).Start(t.Context(), execution.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Detach()
		began := time.Now()
		if _, err := session.RunPython(ctx, request, limits); !errors.Is(err, context.Canceled) {
			t.Errorf("the call gives %v", err)
		}
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("the call was over after %v, before it was called off", took)
		}
	})
}

// A caller who leaves has the call called off; the session is as it was.
func TestSessionCallOff(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	session := inSession(t, func(s *supervisor) {
		s.job()
		s.say('A', "")
		leave()
		if f := <-s.heard; f.kind != 'K' {
			t.Errorf("the supervisor hears %q", f.kind)
		}
		s.say('E', "KeyboardInterrupt")
		s.say('X', fine+"state_lost=1\n")
		s.say('Z', "")
		if frames := s.serve(fine, "as before"); frames[0].kind != 'J' {
			t.Errorf("the supervisor hears %q before the next job, though nobody has heard that the state is lost", frames[0].kind)
		}
	})
	if _, err := session.RunPython(ctx, request, limits); !errors.Is(err, context.Canceled) {
		t.Errorf("the call gives %v", err)
	}
	result, err := session.RunPython(t.Context(), request, limits)
	if err != nil || result.Stdout != "as before" {
		t.Errorf("the next call gives %+v, %v", result, err)
	}
}

// A supervisor that does not heed a calling off costs its caller little, and is
// not spoken to over this connection again.
func TestSessionCallOffUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		session := inSession(t, func(s *supervisor) {
			s.job()
			s.say('A', "")
			leave()
			for f := range s.heard {
				_ = f // it hears and does nothing
			}
		})
		began := time.Now()
		slow := execution.Request{Code: "pass", Timeout: time.Hour}
		if _, err := session.RunPython(ctx, slow, limits); !errors.Is(err, context.Canceled) {
			t.Errorf("the call gives %v", err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the caller was kept for %v", took)
		}
		if session.Usable() {
			t.Error("the session is usable")
		}
		session.Detach()
	})
}

// What was sent whole may have begun, though no word of it came: a program is not
// sent again, which would run it twice. A file is.
func TestSessionLostBeforeTheStart(t *testing.T) {
	for name, end := range map[string]func(s *supervisor){
		"the connection ends":       (*supervisor).leave,
		"another server comes":      func(s *supervisor) { s.say('Y', "somebody else's") },
		"nothing is said in time":   func(*supervisor) { time.Sleep(time.Minute) },
		"something else than begun": func(s *supervisor) { s.say('O', "out of turn") },
	} {
		for kind, call := range map[string]call{"python": runPython, "bash": runBash, "write": writeFiles} {
			t.Run(name+", "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					session := inSession(t, func(s *supervisor) {
						s.job()
						end(s)
					})
					defer session.Detach()
					result, err := call(t.Context(), session)
					if kind == "write" {
						if !errors.Is(err, execution.ErrNotStarted) {
							t.Errorf("the call gives %+v, %v", result, err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if result.End.Reason != execution.SandboxLost || exitCode(result) != 137 || result.Started.IsZero() ||
						!strings.Contains(result.End.Message, "it may have run") {
						t.Errorf("the result is %+v", result)
					}
					if session.Usable() {
						t.Error("the session is usable")
					}
				})
			})
		}
	}
}

// A job that did not arrive in order did not begin, and can be made again.
func TestSessionLostTheThread(t *testing.T) {
	session := inSession(t, func(s *supervisor) {
		s.job()
		s.say('L', "")
	})
	if result, err := session.RunPython(t.Context(), request, limits); !errors.Is(err, execution.ErrNotStarted) {
		t.Errorf("the call gives %+v, %v", result, err)
	}
	if session.Usable() {
		t.Error("the session is usable")
	}
}

// A source that fails takes the job back, not the session.
func TestSessionSourceFails(t *testing.T) {
	session := inSession(t, func(s *supervisor) {
		for f := range s.heard {
			if f.kind == 'N' {
				break
			}
		}
		s.serve(fine, "next")
	})
	broken := execution.WriteRequest{Files: []execution.Input{{Path: "a", Size: 10, Source: failing{}}}}
	if err := session.WriteFiles(t.Context(), broken, limits); err == nil || errors.Is(err, execution.ErrNotStarted) {
		t.Errorf("the call gives %v", err)
	}
	result, err := session.RunPython(t.Context(), request, limits)
	if err != nil || result.Stdout != "next" {
		t.Errorf("the next call gives %+v, %v", result, err)
	}
}

type failing struct{}

func (failing) Open(context.Context) (io.ReadCloser, error) { return nil, errors.New("no such thing") }

// A slow store costs a session nothing: the supervisor hears of its server while
// it waits, and between calls it hears nothing.
func TestSessionWithASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 10 * time.Minute
		k := &keeper{waits: map[string]time.Duration{"d/a": slow}}
		i := newInstance(t, func(s *supervisor) {
			s.say('R', greeting+"isolation=session\n")
			s.job()
			s.say('A', "")
			s.say('X', fine)
			sayFiles(s)
		})
		session, err := hostOf(i).Start(t.Context(), execution.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Detach()
		req := request
		req.Keep = k.keep
		result, err := session.RunPython(t.Context(), req, limits)
		if err != nil || len(result.Files) != 3 {
			t.Errorf("%+v, %v", result, err)
		}
		if pings := len(i.supervisor.pings); pings < int(slow/python.Silence) {
			t.Errorf("%d pings in %v", pings, slow)
		}
		synctest.Wait()
		before := len(i.supervisor.pings)
		time.Sleep(slow)
		if pings := len(i.supervisor.pings) - before; pings > 0 {
			t.Errorf("an idle session hears %d pings", pings)
		}
	})
}

// A session that ends in the middle of a call is a result that says so.
func TestSessionEnds(t *testing.T) {
	session := inSession(t, func(s *supervisor) {
		s.job()
		s.say('A', "")
		s.say('O', "so far")
		s.leave()
	})
	result, err := session.RunPython(t.Context(), request, limits)
	if err != nil {
		t.Fatal(err)
	}
	if result.Stdout != "so far" || result.End.Reason != execution.SandboxLost || !strings.Contains(result.End.Message, "the session ended") {
		t.Errorf("the result is %+v", result)
	}
	<-session.Done()
	if session.Usable() {
		t.Error("the session is usable")
	}
}

// A session's supervisor is told when the session ends, also while a call is made, and
// answers nothing.
func TestSessionSetEnd(t *testing.T) {
	end := time.UnixMilli(1_800_000_000_123)
	heard := make(chan frame, 2)
	session := inSession(t, func(s *supervisor) {
		heard <- <-s.heard
		s.job()
		s.say('A', "")
		heard <- <-s.heard
		s.say('X', fine)
		s.say('Z', "")
	})
	if err := session.SetEnd(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		<-started
		if err := session.SetEnd(t.Context(), end); err != nil {
			t.Error(err)
		}
	}()
	req := request
	req.Started = func() { close(started) }
	if result, err := session.RunPython(t.Context(), req, limits); err != nil || result.End.Reason != execution.Exited {
		t.Errorf("the call returns %+v, %v", result, err)
	}
	for range 2 {
		if f := <-heard; f.kind != 'U' || f.payload != "expires_ms=1800000000123\n" {
			t.Errorf("it hears %q %q", f.kind, f.payload)
		}
	}
	if !session.Usable() {
		t.Error("the connection cannot be used any more")
	}
}
