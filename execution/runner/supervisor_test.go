package runner

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// constant finds a constant of supervisor.py or session.py.
func constant(t *testing.T, name, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` = (` + pattern + `)\s`).FindStringSubmatch(supervisorSource + sessionSource)
	if found == nil {
		t.Fatalf("the supervisor has no constant %s that looks like %s", name, pattern)
	}
	return found[1]
}

func powerOfTwo(t *testing.T, name string) int {
	t.Helper()
	exponent, err := strconv.Atoi(constant(t, name, `1 << \d+`)[len("1 << "):])
	if err != nil {
		t.Fatal(err)
	}
	return 1 << exponent
}

// What both sides of the protocol must agree on is written down twice.
func TestSupervisorAgrees(t *testing.T) {
	if got := constant(t, "PROTOCOL", `\d+`); got != strconv.Itoa(protocolVersion) {
		t.Errorf("it speaks protocol %s", got)
	}
	if got := constant(t, "MAIN_FILE", `"[^"]+"`); got != strconv.Quote(execution.MainFile) {
		t.Errorf("it calls the program %s", got)
	}
	if got := constant(t, "TAG", `\d+`); got != strconv.Itoa(tagBytes) {
		t.Errorf("it looks for a tag of %s bytes", got)
	}
	if got := powerOfTwo(t, "CHUNK"); got > maxFrameBytes {
		t.Errorf("it sends %d bytes at a time: more than is taken", got)
	}
	if got := powerOfTwo(t, "MAX_FRAME"); got < chunkBytes {
		t.Errorf("it takes %d bytes at a time: less than are sent", got)
	}
}
