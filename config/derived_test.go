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
			c, err = c.ForMachine(test.machine)
		}
		if err != nil || sizesOf(c) != test.want {
			t.Errorf("%s: %+v, not %+v (%v)", name, sizesOf(c), test.want, err)
		}
		if c.FollowsMachine() != (test.env["MEMORY_LIMIT_MB"] == "") {
			t.Errorf("%s: whether it follows the machine is %v", name, c.FollowsMachine())
		}
	}
}

// What is set and does not fit is an error, which names what to change.
func TestLimitsThatDoNotFitTheMachine(t *testing.T) {
	c, err := load(t, map[string]string{"WORKSPACE_LIMIT_MB": "300", "TMP_LIMIT_MB": "200"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ForMachine(1 << 30)
	if want := "WORKSPACE_LIMIT_MB is 300: must be at most MEMORY_LIMIT_MB, which is 256 unless it is set"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
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
