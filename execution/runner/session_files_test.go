package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A list is what the supervisor reports, whatever comes between.
func TestSessionListFiles(t *testing.T) {
	jobs := make(chan []frame, 1)
	session := inSession(t, func(s *supervisor) {
		jobs <- s.job()
		s.say('A', "")
		s.say('X', fine)
		s.say('M', "folder 0 1000 0 a b")
		s.say('M', "file 12 1500 1 a b/c d")
		s.say('S', "bad\\name\x00it has a backslash")
		s.say('Z', "")
	})
	var listing execution.Listing
	result, err := session.ListFiles(t.Context(), execution.ListRequest{Path: "a b", Most: 2}, &listing, limits)
	if err != nil || len(result.Skipped) != 1 || result.End.Message != "" {
		t.Fatalf("the result is %+v, %v", result, err)
	}
	want := []execution.Entry{
		{Path: "a b", Kind: execution.KindFolder, Modified: time.UnixMilli(1000)},
		{Path: "a b/c d", Kind: execution.KindFile, Size: 12, Modified: time.UnixMilli(1500), Executable: true},
	}
	if !slices.Equal(listing.Entries, want) {
		t.Errorf("the list is %+v", listing.Entries)
	}
	if job := <-jobs; !strings.Contains(job[0].payload, "op=4\n") || !strings.Contains(job[0].payload, "\nfiles=2\n") || job[1].payload != "a b" {
		t.Errorf("the job is %q", job)
	}
}

// A supervisor whose list is not one is not believed.
func TestSessionListIsChecked(t *testing.T) {
	for name, entries := range map[string][]string{
		"too many":     {"file 0 0 0 a", "file 0 0 0 b"},
		"another kind": {"door 0 0 0 a"},
		"no size":      {"file x 0 0 a"},
		"negative":     {"file -1 0 0 a"},
		"no path":      {"file 0 0 0"},
		"out of it":    {"file 0 0 0 ../a"},
		"a control":    {"file 0 0 0 a\x1b"},
	} {
		t.Run(name, func(t *testing.T) {
			session := inSession(t, func(s *supervisor) {
				s.job()
				s.say('A', "")
				s.say('X', fine)
				for _, entry := range entries {
					s.say('M', entry)
				}
				s.say('Z', "")
			})
			var listing execution.Listing
			result, err := session.ListFiles(t.Context(), execution.ListRequest{Most: 1}, &listing, limits)
			if err != nil || result.End.Message == "" || session.Usable() {
				t.Errorf("it returns %+v, %v, and the connection is usable: %v", result, err, session.Usable())
			}
		})
	}
}

// A folder's files are kept while they arrive, each after its description.
func TestSessionPackFolder(t *testing.T) {
	session := inSession(t, func(s *supervisor) {
		s.job()
		s.say('A', "")
		s.say('X', fine)
		s.say('M', "folder 0 0 0 d")
		for _, name := range []string{"a", "b"} {
			s.say('M', "file 3 0 0 d/"+name)
			s.say('F', "d/"+name)
			s.say('D', "12")
			s.say('D', name)
		}
		s.say('M', "file 3 0 0 d/gone")
		s.say('S', "d/gone\x00no such file")
		s.say('Z', "")
	})
	var log []string
	result, err := session.PackFolder(t.Context(), execution.PackRequest{
		Entry: func(e execution.Entry) { log = append(log, e.Path) },
		Keep: func(_ context.Context, path string, content io.Reader) (string, error) {
			data, err := io.ReadAll(content)
			log = append(log, fmt.Sprintf("%s=%s", path, data))
			return path, err
		},
	}, limits)
	if want := "d d/a d/a=12a d/b d/b=12b d/gone"; err != nil || result.End.Message != "" || strings.Join(log, " ") != want {
		t.Errorf("it returns %v after %q", err, log)
	}
}

func TestSessionChangesFiles(t *testing.T) {
	jobs := make(chan []frame, 2)
	session := inSession(t, func(s *supervisor) {
		jobs <- s.serve(fine, "")
		jobs <- s.serve(fine, "")
	})
	if err := session.DeleteFile(t.Context(), "a", limits); err != nil {
		t.Error(err)
	}
	if err := session.RenameFile(t.Context(), execution.RenameRequest{Path: "a", Target: "b/c"}, limits); err != nil {
		t.Error(err)
	}
	for _, want := range []struct{ op, code string }{{"op=5\n", "a"}, {"op=6\n", "a\x00b/c"}} {
		if job := <-jobs; !strings.Contains(job[0].payload, want.op) || job[1].payload != want.code {
			t.Errorf("the job is %q", job)
		}
	}
}

// What a supervisor refuses is a fault of the path that it is about.
func TestSessionFileRefusals(t *testing.T) {
	rename := func(ctx context.Context, session execution.Session) error {
		return session.RenameFile(ctx, execution.RenameRequest{Path: "a", Target: "b"}, limits)
	}
	remove := func(ctx context.Context, session execution.Session) error {
		return session.DeleteFile(ctx, "a", limits)
	}
	pack := func(ctx context.Context, session execution.Session) error {
		_, err := session.PackFolder(ctx, execution.PackRequest{Path: "a"}, limits)
		return err
	}
	for name, test := range map[string]struct {
		call  func(ctx context.Context, session execution.Session) error
		errno syscall.Errno
		at    int
		want  string
	}{
		"no source":     {rename, syscall.ENOENT, -1, "File 'a' not found in the session"},
		"no folder":     {rename, syscall.ENOTDIR, 1, `target cannot be used: why (it is "b")`},
		"taken":         {rename, syscall.EEXIST, 1, `target cannot be used: why (it is "b")`},
		"none":          {remove, syscall.ENOENT, -1, "File 'a' not found in the session"},
		"not deletable": {remove, syscall.EBUSY, 1, `path cannot be used: why (it is "a")`},
		"not a folder":  {pack, syscall.ENOTDIR, -1, "Folder 'a' not found in the session"},
	} {
		t.Run(name, func(t *testing.T) {
			session := inSession(t, func(s *supervisor) {
				s.job()
				s.say('!', fmt.Sprintf("errno=%d\nmessage=why\nfile=%d\n", test.errno, test.at))
			})
			if err := test.call(t.Context(), session); err == nil || err.Error() != test.want {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// Files that become known one after the other are sent so; a fault names the one.
func TestSessionWritesFurtherFiles(t *testing.T) {
	frames := make(chan []frame, 1)
	session := inSession(t, func(s *supervisor) {
		frames <- s.job()
		s.say('!', "errno=21\nmessage=is a folder\nfile=2\n")
		for range s.heard { // a job that is withdrawn is not answered
		}
	})
	more := func(files ...execution.Input) func(context.Context) (execution.Input, error) {
		return func(context.Context) (execution.Input, error) {
			if len(files) == 0 {
				return execution.Input{}, io.EOF
			}
			file := files[0]
			files = files[1:]
			return file, nil
		}
	}
	executable := execution.Inline("c", []byte("2"))
	executable.Executable = true
	err := session.WriteFiles(t.Context(), execution.WriteRequest{
		Files: []execution.Input{execution.Inline("a", []byte("1"))}, More: more(execution.Input{Path: "b", Folder: true}, executable),
	}, limits)
	if err == nil || err.Error() != `archive cannot be used: is a folder (it is "c")` {
		t.Errorf("the error is %v", err)
	}
	var sent []string
	for _, f := range (<-frames)[1:] {
		sent = append(sent, string(f.kind)+f.payload)
	}
	if want := []string{"Fa", "D1", "Fb/", "Fc\x00x", "D2"}; !slices.Equal(sent, want) {
		t.Errorf("sent: %q", sent)
	}
	fault := errors.New("a link")
	err = session.WriteFiles(t.Context(), execution.WriteRequest{
		More: func(context.Context) (execution.Input, error) { return execution.Input{}, fault },
	}, limits)
	if !errors.Is(err, fault) || !session.Usable() {
		t.Errorf("the error is %v, and the connection is usable: %v", err, session.Usable())
	}
}
