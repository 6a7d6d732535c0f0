package local

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// The lowest limit of a group and of those above counts.
func TestLeastLimit(t *testing.T) {
	for name, test := range map[string]struct {
		outer, inner string
		want         int64
	}{
		"none":        {"max\n", "max\n", math.MaxInt64},
		"outer":       {"1000\n", "max\n", 1000},
		"inner":       {"max\n", "2000\n", 2000},
		"both":        {"3000\n", "4000\n", 3000},
		"version 1's": {"9223372036854771712\n", "5000\n", 5000},
	} {
		outer := t.TempDir()
		inner := filepath.Join(outer, "inner")
		if err := os.Mkdir(inner, 0o750); err != nil {
			t.Fatal(err)
		}
		for folder, text := range map[string]string{outer: test.outer, inner: test.inner} {
			if err := os.WriteFile(filepath.Join(folder, "memory.max"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := leastLimit(inner, "memory.max"); got != test.want {
			t.Errorf("%s: %d, not %d", name, got, test.want)
		}
	}
}

// This process has some memory, and no more than an address can reach.
func TestMemory(t *testing.T) {
	memory, err := machineMemory()
	if err != nil || memory < 16<<20 || memory > 1<<50 {
		t.Errorf("%d, %v", memory, err)
	}
}
