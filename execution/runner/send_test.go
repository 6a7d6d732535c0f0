package runner_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/runner"
	python "github.com/vivarium-sandbox/vivarium/execution/supervisor"
)

// source is one that is a function.
type source func() (io.Reader, error)

func (s source) Open(context.Context) (io.ReadCloser, error) {
	r, err := s()
	return io.NopCloser(r), err
}

// slowly gives one byte after each pause.
type slowly struct {
	io.Reader
	pause time.Duration
}

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Reader.Read(p[:1])
}

func withFile(size int64, open source) execution.Request {
	req := request
	req.Files = []execution.Input{execution.Inline("first", []byte("1")), {Path: "a", Size: size, Source: open}}
	return req
}

// A source that fails is our own fault: the run is not tried again, and its
// sandbox, which has half a job, serves nobody.
func TestRunWithABrokenSource(t *testing.T) {
	broken := errors.New("broken")
	gone := &execution.Error{Code: execution.NotFound, Message: "File not found"}
	for name, test := range map[string]struct {
		open source
		want string
	}{
		"fewer bytes":       {func() (io.Reader, error) { return strings.NewReader("text"), nil }, "ends after 4 bytes"},
		"more bytes":        {func() (io.Reader, error) { return strings.NewReader(strings.Repeat("x", 11)), nil }, "more than its declared size of 10 bytes"},
		"far more bytes":    {func() (io.Reader, error) { return strings.NewReader(strings.Repeat("x", 1<<20)), nil }, "more than its declared size of 10 bytes"},
		"an error":          {func() (io.Reader, error) { return nil, broken }, "broken"},
		"one of the domain": {func() (io.Reader, error) { return nil, gone }, "File not found"},
		"an error later": {func() (io.Reader, error) {
			return io.MultiReader(strings.NewReader("text"), iotest.ErrReader(broken)), nil
		}, "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			var heard []frame
			i := newInstance(t, ready(func(s *supervisor) {
				heard = s.job()
			}))
			sandbox, err := runner.Open(t.Context(), i, quiet)
			if err != nil {
				t.Fatal(err)
			}
			result, err := sandbox.Run(t.Context(), withFile(10, test.open), limits)
			if result != nil || errors.Is(err, execution.ErrNotStarted) || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("result %v, error %v", result, err)
			}
			if sandbox.Reusable() {
				t.Error("the sandbox may be used again")
			}
			if err := sandbox.Close(); err != nil {
				t.Error(err)
			}
			i.scripts.Wait()
			if len(heard) > 0 { // the job's end never came
				t.Errorf("the supervisor took it for a job: %v", heard)
			}
		})
	}
}

// While a source is slow, pings go between and the sandbox lives: it is not the
// sandbox's time that passes.
func TestRunWithASlowSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jobs := make(chan []frame, 1)
		i := newInstance(t, ready(func(s *supervisor) {
			jobs <- s.job()
			s.say('A', "")
			s.say('X', fine)
			s.say('Z', "")
		}))
		began := time.Now()
		_, err := open(t, i).Run(t.Context(), withFile(3, func() (io.Reader, error) {
			return slowly{strings.NewReader("abc"), time.Minute}, nil
		}), limits)
		if took := time.Since(began); err != nil || took < 3*time.Minute {
			t.Fatalf("%v after %v", err, took)
		}
		want := []frame{{'F', "first"}, {'D', "1"}, {'F', "a"}, {'D', "a"}, {'D', "b"}, {'D', "c"}}
		if diff := cmp.Diff(want, (<-jobs)[2:], cmp.AllowUnexported(frame{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if pings := len(i.supervisor.pings); pings < int(3*time.Minute/python.Silence) {
			t.Errorf("%d pings", pings)
		}
	})
}

// A supervisor that breaks off because files do not fit is heard.
func TestRunThatDoesNotFitHalfWay(t *testing.T) {
	i := newDeafInstance(t, ready(func(s *supervisor) {
		for range 3 {
			if _, err := readFrame(s.conn); err != nil {
				return
			}
		}
		s.say('!', "full=1\nmessage=No space left on device\n")
		s.leave()
	}))
	req := withFile(1<<20, func() (io.Reader, error) { return strings.NewReader(strings.Repeat("x", 1<<20)), nil })
	_, err := open(t, i).Run(t.Context(), req, limits)
	if domain := execution.AsError(err); domain.Code != execution.TooLarge || errors.Is(err, execution.ErrNotStarted) {
		t.Errorf("the error is %v", err)
	}
}
