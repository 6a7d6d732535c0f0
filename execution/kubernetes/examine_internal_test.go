package kubernetes

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A closed port that answers, even to refuse, shows that no policy closes it.
func TestJudgePolicies(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		network string
		want    Verdict
		says    string
	}{
		"refuses":      {&net.OpError{Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "none", Doubtful, "isolated all the same"},
		"listens":      {errOpen, "none", Doubtful, "not enforced"},
		"pods network": {errOpen, networkOfPod, Doubtful, "reach whatever pods"},
		"is silent":    {&net.OpError{Err: context.DeadlineExceeded}, "none", Good, "are enforced"},
		"is forbidden": {&net.OpError{Err: os.NewSyscallError("connect", syscall.EPERM)}, "none", Good, "are enforced"},
		"is elsewhere": {errors.New("no route to host"), "none", Doubtful, "it is not known whether NetworkPolicies are enforced: no route to host"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judgePolicies(test.err, test.network); got.Verdict != test.want || !strings.Contains(got.Text, test.says) {
				t.Errorf("%+v", got)
			}
		})
	}
}
