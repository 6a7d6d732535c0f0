package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The command line, by scripts: testdata/script/*.txtar, and those in the folder
// of the backend.
func TestScripts(t *testing.T) {
	for _, folder := range []string{"testdata/script", filepath.Join("testdata/script", *backendFlag)} {
		runScripts(t, folder)
	}
}

func runScripts(t *testing.T, folder string) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:  folder,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(shared.binary)+string(os.PathListSeparator)+env.Getenv("PATH"))
			for _, setting := range with(slimImage) {
				name, value, _ := strings.Cut(setting, "=")
				env.Setenv(name, value)
			}
			for _, name := range []string{"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"} {
				env.Setenv(name, os.Getenv(name))
			}
			return nil
		},
	})
}

// exits is a command of the scripts: `exits N program args...` runs a program
// that must exit with code N.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		code = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if args[0] != strconv.Itoa(code) {
		ts.Fatalf("it exited with %d", code)
	}
}
