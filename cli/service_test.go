package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
)

// defaults returns the settings of an empty environment.
func defaults(t *testing.T) config.Config {
	t.Helper()
	c, err := config.Load(t.Context(), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each setting reaches the option that it is for, in the right unit.
func TestSettingsReachTheirPlaces(t *testing.T) {
	c := defaults(t)
	wantLimits := execution.Limits{
		MaxTimeout: time.Minute, OutputBytes: 1_000_000, WorkspaceBytes: 512 << 20,
		ResultFiles: 100, ResultFileBytes: 100 << 20, ResultBytes: 512 << 20, CPUs: 1, MemoryBytes: 1024 << 20,
	}
	if diff := cmp.Diff(wantLimits, limits(c)); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	c.Runtime = "runsc"
	wantSettings := execution.Settings{
		Isolation: execution.IsolationAuto, Preload: "auto",
		Network: "none", Runtime: "runsc", MemoryBytes: 1024 << 20, CPUs: 1, Processes: 64, WorkspaceBytes: 512 << 20, TempBytes: 256 << 20,
	}
	if diff := cmp.Diff(wantSettings, sandboxSettings(c)); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// A container may live longer than its highest age plus its longest run.
func TestLifetimeCoversARun(t *testing.T) {
	c := defaults(t)
	if least := time.Hour + time.Minute; lifetime(c) <= least || lifetime(c) > least+time.Hour {
		t.Errorf("the lifetime is %v", lifetime(c))
	}
}

func TestProvideLeavesOtherImages(t *testing.T) {
	s, _, _ := system("")
	if ours, err := provide(s.Stderr)(t.Context(), nil, "python:3"); ours || err != nil {
		t.Errorf("%v %v", ours, err)
	}
}
