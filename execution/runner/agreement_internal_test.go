package runner

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// constant returns a constant of a module of the supervisor.
func constant(t *testing.T, module, name, pattern string) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "supervisor", module+".py"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + name + ` = (` + pattern + `)\s`).FindStringSubmatch(string(source))
	if found == nil {
		t.Fatalf("%s has no constant %s that looks like %s", module, name, pattern)
	}
	return found[1]
}

func powerOfTwo(t *testing.T, module, name string) int {
	t.Helper()
	exponent, err := strconv.Atoi(constant(t, module, name, `1 << \d+`)[len("1 << "):])
	if err != nil {
		t.Fatal(err)
	}
	return 1 << exponent
}

// What both sides of the protocol must agree on is written down twice.
func TestSupervisorAgrees(t *testing.T) {
	if got := constant(t, "pid1/sandbox", "PROTOCOL", `\d+`); got != strconv.Itoa(protocolVersion) {
		t.Errorf("it speaks protocol %s", got)
	}
	if got := constant(t, "program/program", "MAIN_FILE", `"[^"]+"`); got != strconv.Quote(execution.MainFile) {
		t.Errorf("it calls the program %s", got)
	}
	if got := constant(t, "session/session_channel", "TAG", `\d+`); got != strconv.Itoa(tagBytes) {
		t.Errorf("it looks for a tag of %s bytes", got)
	}
	if got := powerOfTwo(t, "shared/kernel", "CHUNK"); got > maxFrameBytes {
		t.Errorf("it sends %d bytes at a time: more than is taken", got)
	}
	if got := powerOfTwo(t, "pid1/channel", "MAX_FRAME"); got < chunkBytes {
		t.Errorf("it takes %d bytes at a time: less than are sent", got)
	}
}
