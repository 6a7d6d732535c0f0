package runner_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

func TestBrokenFactsAreNoSuccess(t *testing.T) {
	result := run(t, started(func(s *supervisor) {
		s.say('X', "exit_code=-1\nsignal=99999\n")
		s.say('Z', "")
	}))
	if !result.Failed() || result.End.Reason == execution.Exited {
		t.Errorf("nonsense counts as success: %+v, exit code %d", result.End, exitCode(result))
	}
}

func TestCancelWhileTheJobIsSent(t *testing.T) {
	i := newDeafInstance(t, ready(func(*supervisor) {}))
	sandbox := open(t, i)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	_, err := sandbox.Run(ctx, request, limits)
	t.Logf("%v %v", err, time.Since(began))
	if time.Since(began) > time.Second {
		t.Errorf("Run returned %v after the caller had left", time.Since(began))
	}
}

func TestUnnamedSignal(t *testing.T) {
	result := run(t, started(func(s *supervisor) {
		s.say('X', "exit_code=162\nsignal=34\ntimed_out=0\nwall_us=1\nkill_us=100\ncpu_us=1\npeak_kb=1\nmemory_kills=0\nrefused_processes=0\nfull=0\n")
		s.say('Z', "")
	}))
	if result.End.Signal == "" {
		t.Errorf("%+v", result.End)
	}
}

func TestSamePathTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result := run(t, ended(func(s *supervisor) {
			s.say('F', "a")
			s.say('F', "a")
			s.say('F', "a/b")
			s.say('Z', "")
		}))
		if result.End.Message == "" {
			t.Errorf("%v", result.Files)
		}
	})
}
