package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// keeper keeps files in memory, under their paths.
type keeper struct {
	kept  map[string]string
	errs  map[string]error         // by path: it fails before it reads
	waits map[string]time.Duration // by path: how slow it is
}

func (k *keeper) keep(_ context.Context, path string, content io.Reader) (string, error) {
	time.Sleep(k.waits[path])
	if err := k.errs[path]; err != nil {
		return "", err
	}
	data, err := io.ReadAll(content)
	if err != nil {
		return "", fmt.Errorf("keeping: %w", err)
	}
	if k.kept == nil {
		k.kept = make(map[string]string)
	}
	k.kept[path] = string(data)
	return "id of " + path, nil
}

// runKept runs the request with a keeper, in a sandbox of that script.
func runKept(t *testing.T, k *keeper, script func(s *supervisor)) *execution.Result {
	t.Helper()
	req := request
	req.Keep = k.keep
	result, err := open(t, newInstance(t, script)).Run(t.Context(), req, limits)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func sayFiles(s *supervisor) {
	s.say('F', "empty")
	s.say('F', "d/a")
	s.say('D', "some, ")
	s.say('D', "more")
	s.say('F', "b")
	s.say('D', "b")
	s.say('S', "huge\x00it is too large")
	s.say('Z', "")
}

func TestRunKeepsFiles(t *testing.T) {
	k := &keeper{}
	result := runKept(t, k, ended(sayFiles))
	want := []execution.File{
		{Path: "empty", ID: "id of empty"}, {Path: "d/a", Size: 10, ID: "id of d/a"}, {Path: "b", Size: 1, ID: "id of b"},
	}
	if diff := cmp.Diff(want, result.Files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"empty": "", "d/a": "some, more", "b": "b"}, k.kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if len(result.Skipped) != 1 || result.End != (execution.End{Reason: execution.Exited}) {
		t.Errorf("skipped %+v, end %+v", result.Skipped, result.End)
	}
}

// What cannot be kept is skipped, with the reason, and the rest comes along.
func TestRunSkipsWhatCannotBeKept(t *testing.T) {
	k := &keeper{errs: map[string]error{
		"empty": &execution.Error{Code: execution.StoreFull, Message: "The file store is full"}, "d/a": errors.New("a disk's secret"),
	}}
	result := runKept(t, k, ended(sayFiles))
	if diff := cmp.Diff([]execution.File{{Path: "b", Size: 1, ID: "id of b"}}, result.Files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := []execution.SkippedFile{
		{Path: "empty", Reason: "it could not be stored: The file store is full"},
		{Path: "d/a", Reason: "it could not be stored: internal error"},
		{Path: "huge", Reason: "it is too large"},
	}
	if diff := cmp.Diff(want, result.Skipped); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A file that was changed while it was read is skipped, and the rest comes along.
func TestRunSkipsTornFiles(t *testing.T) {
	torn := func(s *supervisor) {
		s.say('F', "a")
		s.say('D', "half of")
		s.say('T', "it has become shorter\x1b")
		s.say('F', "b")
		s.say('T', "at once")
		s.say('F', "c")
		s.say('D', "c")
		s.say('Z', "")
	}
	want := []execution.SkippedFile{{Path: "a", Reason: `it has become shorter\x1b`}, {Path: "b", Reason: "at once"}}
	k := &keeper{}
	for name, result := range map[string]*execution.Result{"kept": runKept(t, k, ended(torn)), "held": run(t, ended(torn))} {
		if len(result.Files) != 1 || result.Files[0].Path != "c" || result.End != (execution.End{Reason: execution.Exited}) {
			t.Errorf("%s: files %+v, end %+v", name, result.Files, result.End)
		}
		if diff := cmp.Diff(want, result.Skipped); diff != "" {
			t.Errorf("%s: skipped (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(map[string]string{"c": "c"}, k.kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	late := run(t, ended(func(s *supervisor) { s.say('T', "no file has begun") }))
	if !strings.Contains(late.End.Message, "out of turn") {
		t.Errorf("the end is %+v", late.End)
	}
}

// Half a file is not kept, and is no file of the result's.
func TestRunKeepsNoHalfFile(t *testing.T) {
	for name, then := range map[string]func(s *supervisor){
		"the stream ends":    func(s *supervisor) { s.leave() },
		"too large":          func(s *supervisor) { s.say('D', strings.Repeat("x", 1000)) },
		"an empty piece":     func(s *supervisor) { s.say('D', "") },
		"no more comes":      func(*supervisor) {},
		"half a frame":       func(s *supervisor) { s.send("D\x00\x00"); s.leave() },
		"a frame of no kind": func(s *supervisor) { s.say('O', "late") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &keeper{}
				result := runKept(t, k, ended(func(s *supervisor) {
					s.say('F', "whole")
					s.say('F', "half")
					s.say('D', "half of it")
					then(s)
				}))
				if name == "a frame of no kind" {
					return // whole for the keeper; what follows is wrong
				}
				if diff := cmp.Diff([]execution.File{{Path: "whole", ID: "id of whole"}}, result.Files); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if _, kept := k.kept["half"]; kept || len(result.Skipped) != 1 || result.Skipped[0].Path != "half" {
					t.Errorf("kept %v, skipped %+v", k.kept, result.Skipped)
				}
				if !strings.Contains(result.End.Message, "not all files") {
					t.Errorf("the end is %+v", result.End)
				}
			})
		})
	}
}

// A slow store loses no file, and a silent sandbox is given up all the same.
func TestRunWithASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{waits: map[string]time.Duration{"d/a": 10 * time.Minute, "b": 10 * time.Minute}}
		result := runKept(t, k, ended(sayFiles))
		if len(result.Files) != 3 || result.End.Message != "" {
			t.Errorf("files %+v, end %+v", result.Files, result.End)
		}
		began := time.Now()
		result = runKept(t, k, ended(func(s *supervisor) {
			s.say('F', "d/a")
			time.Sleep(20 * time.Second)
			s.say('D', "some")
		}))
		if took := time.Since(began); len(result.Files) != 0 || took > 11*time.Minute {
			t.Errorf("files %+v after %v", result.Files, took)
		}
	})
}

// A sandbox may be slow with much, as long as something comes; not with little.
func TestRunWithASlowSandbox(t *testing.T) {
	for name, test := range map[string]struct {
		piece int
		whole bool
	}{"much": {64 << 10, true}, "little": {1, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				generous := limits
				generous.ResultFileBytes, generous.ResultBytes = 100<<20, 100<<20
				k := &keeper{}
				req := request
				req.Keep = k.keep
				result, err := open(t, newInstance(t, ended(func(s *supervisor) {
					s.say('F', "a")
					for range 1000 {
						time.Sleep(60 * time.Millisecond) // 64 KB at 1 MB a second
						s.say('D', strings.Repeat("x", test.piece))
					}
					s.say('Z', "")
				}))).Run(t.Context(), req, generous)
				if err != nil || (len(result.Files) == 1) != test.whole {
					t.Errorf("%+v, %v", result, err)
				}
			})
		})
	}
}

// While the store is busy the sandbox waits: no file is held whole.
func TestRunHoldsFewChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said atomic.Int64
		k := &keeper{waits: map[string]time.Duration{"a": time.Minute}}
		go func() {
			time.Sleep(30 * time.Second)
			if n := said.Load(); n > 8 {
				t.Errorf("%d chunks were taken for a store that takes none", n)
			}
		}()
		result := runKept(t, k, ended(func(s *supervisor) {
			s.say('F', "a")
			for range 100 {
				s.say('D', "x")
				said.Add(1)
			}
			s.say('Z', "")
		}))
		if len(result.Files) != 1 || result.Files[0].Size != 100 {
			t.Errorf("%+v", result.Files)
		}
	})
}

// When the caller leaves while a file is kept, the keeper learns of it.
func TestRunCancelledWhileKeeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the caller left")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		k := &keeper{}
		req := request
		req.Keep = k.keep
		result, err := open(t, newInstance(t, ended(func(s *supervisor) { s.say('F', "a"); s.say('D', "half") }))).Run(ctx, req, limits)
		if result != nil || !errors.Is(err, why) || len(k.kept) > 0 {
			t.Errorf("result %v, error %v, kept %v", result, err, k.kept)
		}
	})
}
