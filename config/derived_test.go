package config_test

import (
	"testing"

	"github.com/vivarium-sandbox/vivarium/config"
)

// sizes are the limits that fit each other, in MB.
type sizes struct{ memory, workspace, tmp, file, result int }

func sizesOf(c config.Config) sizes {
	return sizes{c.MemoryLimitMB, c.WorkspaceLimitMB, c.TmpLimitMB, c.MaxFileSizeMB, c.MaxResultMB}
}

// What is not set follows what is set, and the machine.
func TestLimitsFitEachOther(t *testing.T) {
	const gigabyte = 1 << 30
	for name, test := range map[string]struct {
		env     map[string]string
		machine int64
		want    sizes
	}{
		"a large machine":        {nil, 64 * gigabyte, sizes{1024, 512, 256, 100, 512}},
		"four gigabytes":         {nil, 4 * gigabyte, sizes{1024, 512, 256, 100, 512}},
		"a small machine":        {nil, gigabyte, sizes{256, 128, 64, 100, 128}},
		"a tiny machine":         {nil, gigabyte / 4, sizes{64, 64, 64, 100, 100}},
		"an unknown machine":     {nil, 0, sizes{1024, 512, 256, 100, 512}},
		"memory":                 {map[string]string{"MEMORY_LIMIT_MB": "4096"}, gigabyte, sizes{4096, 2048, 1024, 100, 2048}},
		"little memory":          {map[string]string{"MEMORY_LIMIT_MB": "128"}, 64 * gigabyte, sizes{128, 100, 64, 100, 100}},
		"the workspace":          {map[string]string{"WORKSPACE_LIMIT_MB": "64"}, 64 * gigabyte, sizes{1024, 64, 256, 100, 100}},
		"the size of a file":     {map[string]string{"MAX_FILE_SIZE_MB": "700"}, 64 * gigabyte, sizes{1024, 700, 256, 700, 700}},
		"the size of all":        {map[string]string{"MAX_RESULT_MB": "20"}, 64 * gigabyte, sizes{1024, 512, 256, 100, 20}},
		"a file beyond the rest": {map[string]string{"MAX_FILE_SIZE_MB": "3000"}, 64 * gigabyte, sizes{1024, 1024, 256, 3000, 3000}},
		"a small store":          {map[string]string{"FILE_STORE_MAX_MB": "50"}, gigabyte / 4, sizes{64, 50, 64, 50, 50}},
	} {
		c, err := load(t, test.env)
		if err == nil {
			c, err = c.ForMachine(config.Machine{Memory: test.machine})
		}
		if err != nil || sizesOf(c) != test.want {
			t.Errorf("%s: %+v, not %+v (%v)", name, sizesOf(c), test.want, err)
		}
	}
}

// What is set and does not fit is an error, which names what to change.
func TestLimitsThatDoNotFitTheMachine(t *testing.T) {
	c, err := load(t, map[string]string{"WORKSPACE_LIMIT_MB": "300", "TMP_LIMIT_MB": "200"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ForMachine(config.Machine{Memory: 1 << 30})
	if want := "WORKSPACE_LIMIT_MB is 300: must be at most MEMORY_LIMIT_MB, which is 256 unless it is set"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// The numbers of sandboxes follow the cores. What is set wins.
func TestSandboxesFollowTheCores(t *testing.T) {
	type numbers struct{ pool, all, atWork int }
	for name, test := range map[string]struct {
		env   map[string]string
		cores int
		want  numbers
	}{
		"two cores":         {nil, 2, numbers{3, 16, 3}},
		"one core":          {nil, 1, numbers{2, 16, 2}},
		"an unknown number": {nil, 0, numbers{2, 16, 16}},
		"eight cores":       {nil, 8, numbers{9, 32, 9}},
		"a large machine":   {nil, 64, numbers{16, 256, 65}},
		"the pool":          {map[string]string{"POOL_SIZE": "12"}, 2, numbers{12, 16, 3}},
		"no pool":           {map[string]string{"POOL_SIZE": "0"}, 2, numbers{0, 16, 3}},
		"few sandboxes":     {map[string]string{"MAX_SANDBOXES": "2"}, 8, numbers{2, 2, 9}},
		"many sandboxes":    {map[string]string{"MAX_SANDBOXES": "500"}, 8, numbers{9, 500, 9}},
		"both":              {map[string]string{"POOL_SIZE": "50", "MAX_SANDBOXES": "50"}, 2, numbers{50, 50, 3}},
		"half a core each":  {map[string]string{"CPU_LIMIT": "0.5"}, 2, numbers{3, 16, 5}},
		"four cores each":   {map[string]string{"CPU_LIMIT": "4"}, 2, numbers{3, 16, 3}},
	} {
		c, err := load(t, test.env)
		if err == nil {
			c, err = c.ForMachine(config.Machine{Cores: test.cores})
		}
		if got := (numbers{c.PoolSize, c.MaxSandboxes, c.AtWork()}); err != nil || got != test.want {
			t.Errorf("%s: %+v, not %+v (%v)", name, got, test.want, err)
		}
	}
}

// A pool that is larger than a machine's budget is an error there, and names what to change.
func TestPoolThatDoesNotFitTheMachine(t *testing.T) {
	c, err := load(t, map[string]string{"POOL_SIZE": "30"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ForMachine(config.Machine{Cores: 8}); err != nil {
		t.Error(err)
	}
	_, err = c.ForMachine(config.Machine{Cores: 2})
	if want := "POOL_SIZE is 30: must be at most MAX_SANDBOXES, which is 16 unless it is set"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// Without a pool, settings still follow the machine.
func TestWithoutPool(t *testing.T) {
	c, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := c.WithoutPool().ForMachine(config.Machine{Memory: 1 << 30, Cores: 2})
	if err != nil || bare.PoolSize != 0 || bare.MaxSandboxes != 16 || bare.MemoryLimitMB != 256 {
		t.Errorf("%d of %d, %d MB, %v", bare.PoolSize, bare.MaxSandboxes, bare.MemoryLimitMB, err)
	}
	if c, err = c.ForMachine(config.Machine{Cores: 2}); err != nil || c.PoolSize != 3 {
		t.Errorf("the original has %d, %v", c.PoolSize, err)
	}
}

// The time of a processor follows each request, unless it is set.
func TestCPUTimeFollowsTheTimeout(t *testing.T) {
	for value, want := range map[string]int{"": 0, "5": 5} {
		if c, err := load(t, map[string]string{"CPU_TIME_LIMIT_SEC": value}); err != nil || c.CPUTimeLimitSec != want {
			t.Errorf("%q: %d, %v", value, c.CPUTimeLimitSec, err)
		}
	}
}
