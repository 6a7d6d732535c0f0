package local

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/google/go-cmp/cmp"
)

// fakeManager answers as systemd does.
type fakeManager struct {
	refusal error
	result  string // of the job; "" never comes

	asked  map[string]any
	closed bool
}

func (m *fakeManager) StartTransientUnitContext(_ context.Context, name, mode string, properties []dbus.Property, done chan<- string) (int, error) {
	m.asked = map[string]any{"": name, "mode": mode}
	for _, p := range properties {
		m.asked[p.Name] = p.Value.Value()
	}
	if m.result != "" {
		done <- m.result
	}
	return 1, m.refusal
}

func (m *fakeManager) Close() { m.closed = true }

// What systemd is asked for is a scope with this process in it, whose cgroup is its own.
func TestEnterScope(t *testing.T) {
	for name, test := range map[string]struct {
		manager *fakeManager
		lost    error
		wait    bool
		want    string
	}{
		"made":      {manager: &fakeManager{result: "done"}},
		"failed":    {manager: &fakeManager{result: "failed"}, want: `the job is "failed"`},
		"refused":   {manager: &fakeManager{refusal: errors.New("unit exists")}, want: "refuses a scope: unit exists"},
		"silent":    {manager: &fakeManager{}, want: "no scope within 10s"},
		"no answer": {lost: context.DeadlineExceeded, wait: true, want: "no scope within 10s"},
		"not there": {lost: errors.New("no such file"), want: "cannot be reached: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := enterScope(t.Context(), "12-34", func(ctx context.Context) (manager, error) {
					if test.wait {
						<-ctx.Done()
					}
					return test.manager, test.lost
				})
				if got := errorText(err); !strings.Contains(got, test.want) || (test.want == "") != (err == nil) {
					t.Errorf("%v, not %q", err, test.want)
				}
				if test.manager == nil {
					return
				}
				want := map[string]any{
					"": "vivarium-12-34.scope", "mode": "fail", "Description": "Vivarium and its sandboxes",
					"PIDs": []uint32{uint32(os.Getpid())}, "Delegate": true, "CollectMode": "inactive-or-failed",
				}
				if diff := cmp.Diff(want, test.manager.asked); diff != "" || !test.manager.closed {
					t.Errorf("closed: %v; asked for:\n%s", test.manager.closed, diff)
				}
			})
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
