package hardening_test

import (
	"os"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/hardening"
)

// The images have the same other names of the workspace as the local backend.
func TestImagesHaveTheWorkspacesNames(t *testing.T) {
	recipe, err := os.ReadFile("../../image/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if line := "for name in " + strings.Join(hardening.WorkspaceNames(), " ") + `; do ln -s /workspace "$name"; done`; !strings.Contains(string(recipe), line) {
		t.Errorf("the recipe has no %q", line)
	}
}

// Shared memory is a part of all memory.
func TestSharedMemory(t *testing.T) {
	for memory, want := range map[int64]int64{0: 16 << 20, 32 << 20: 16 << 20, 256 << 20: 64 << 20, 1 << 30: 256 << 20} {
		if got := hardening.SharedMemoryBytes(memory); got != want {
			t.Errorf("of %d bytes it is %d, not %d", memory, got, want)
		}
	}
}
