package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

func TestDiagnosis(t *testing.T) {
	for stderr, want := range map[string]struct {
		cause execution.Cause
		text  string
	}{
		"":                                       {"", ""},
		"cause=namespaces_denied\nunshare: no\n": {execution.NamespacesDenied, "unshare: no\n"},
		"a warning\ncause=foreign_mount\nat /data\n": {execution.ForeignMount, "a warning\nat /data\n"},
		"cause=zygote_ended":                         {execution.ZygoteEnded, ""},
		"cause=made_up\nodd\n":                       {"", "odd\n"},
		"cause=engine_denied\nodd\n":                 {"", "odd\n"}, // not the supervisor's to find
		"for some cause=zygote_ended\n":              {"", "for some cause=zygote_ended\n"},
	} {
		if cause, text := diagnosis(stderr); cause != want.cause || text != want.text {
			t.Errorf("%q: cause %q, text %q", stderr, cause, text)
		}
	}
}

// Every cause of the supervisor's has the same name on both sides.
func TestSupervisorSendsCauses(t *testing.T) {
	files, err := filepath.Glob("../supervisor/*/*.py")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(source)
	}
	for _, cause := range execution.SupervisorCauses() {
		if !strings.Contains(all.String(), `"`+string(cause)+`"`) {
			t.Errorf("the supervisor never sends %q", cause)
		}
	}
}
