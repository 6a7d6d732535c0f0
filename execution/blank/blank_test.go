package blank_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/blank"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

func newMaker(t *testing.T) blank.Maker {
	t.Helper()
	maker, err := blank.NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	return maker
}

func settings() execution.Settings {
	return execution.Settings{Isolation: execution.IsolationAuto, Preload: "auto", Network: "none", MemoryBytes: 256 << 20, Processes: 64}
}

// What a pod expects is what servers with the same settings send for runs, whether or not they are in a hurry.
func TestAheadIsWhatServersSend(t *testing.T) {
	maker, facts := newMaker(t), link.Facts{Arch: "amd64"}
	for asked, isolation := range map[execution.Isolation]execution.Isolation{
		execution.IsolationAuto: execution.IsolationRun, execution.IsolationRun: execution.IsolationRun,
		execution.IsolationContainer: execution.IsolationContainer,
	} {
		s := settings()
		s.Isolation = asked
		ahead, err := maker.Ahead(s, facts)
		if err != nil {
			t.Fatal(err)
		}
		s.Isolation = isolation
		for _, bare := range []bool{false, true} {
			sent, err := maker.Boot(execution.Spec{Image: "pool/hash", Settings: s, Bare: bare}, facts)
			if err != nil || !reflect.DeepEqual(sent, ahead[0]) {
				t.Errorf("%s, bare %t: another is sent (%v)", asked, bare, err)
			}
		}
		if session := ahead[len(ahead)-1]; !session.Lasting || session.Zygotes {
			t.Errorf("%s: the last is not a session's", asked)
		}
	}
}

// A pod without a filter of its runtime gets that of its machine, and none starts without one.
func TestFilters(t *testing.T) {
	maker, spec := newMaker(t), execution.Spec{Settings: settings()}
	filters := make(map[string]bool)
	for _, arch := range []string{"amd64", "arm64"} {
		boot, err := maker.Boot(spec, link.Facts{Arch: arch})
		if err != nil || len(boot.Filter) == 0 {
			t.Errorf("%s: no filter (%v)", arch, err)
		}
		filters[string(boot.Filter)] = true
	}
	if len(filters) != 2 {
		t.Error("both machines have the same filter")
	}
	if boot, err := maker.Boot(spec, link.Facts{Arch: "riscv64", Seccomp: true}); err != nil || len(boot.Filter) != 0 {
		t.Errorf("a second filter, or %v", err)
	}
	if _, err := maker.Boot(spec, link.Facts{Arch: "riscv64"}); err == nil || !strings.Contains(err.Error(), `no filter for "riscv64"`) {
		t.Errorf("the error is %v", err)
	}
}
