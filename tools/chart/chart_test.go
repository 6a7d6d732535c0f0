// Package chart tests the chart with Helm itself, without a cluster.
package chart

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const (
	folder  = "../../charts/vivarium"
	version = "1.34.0" // of Kubernetes
)

var update = flag.Bool("update", false, "write the rendered value sets anew")

// helmPath returns the path of Helm, which go tool builds.
var helmPath = sync.OnceValues(func() (string, error) {
	path, err := exec.Command("go", "tool", "-n", "helm").Output()
	return strings.TrimSpace(string(path)), err
})

// helm runs a command of Helm. A failed one has printed why on stderr.
func helm(t *testing.T, args ...string) (stdout, stderr string, failed bool) {
	t.Helper()
	path, err := helmPath()
	if err != nil {
		t.Fatalf("go tool helm: %v", err)
	}
	var out, problems strings.Builder
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), problems.String(), err != nil
}

// template renders the chart.
func template(t *testing.T, args ...string) (rendered, problems string, failed bool) {
	t.Helper()
	return helm(t, append([]string{"template", "vivarium", folder, "--namespace", "vivarium", "--kube-version", version}, args...)...)
}

// sets returns the files with values, by name.
func sets(t *testing.T) map[string]string {
	t.Helper()
	const suffix, least = ".values.yaml", 8
	paths, err := filepath.Glob(folder + "/testdata/*" + suffix)
	if err != nil || len(paths) < least {
		t.Fatalf("the value sets are %q (%v)", paths, err)
	}
	found := make(map[string]string)
	for _, path := range paths {
		found[strings.TrimSuffix(filepath.Base(path), suffix)] = path
	}
	return found
}

// steady replaces what differs each time, and the program of PID 1, which another test compares.
func steady(rendered string) string {
	for pattern, text := range map[string]string{
		`(?m)^( +(?:API_KEYS|tls\.crt|tls\.key|ca\.crt): )\S+$`:            "${1}MADE",
		`(?m)^( +pod-template-hash: )"[0-9a-f]{10}"$`:                      "${1}MADE",
		`(?m)^( +)- "\\"\\"\\"PID 1 of .*"$`:                               `${1}- "LINK"`,
		`(?s)( value: \|-\n +)-----BEGIN CERT.*?-----END CERTIFICATE-----`: "${1}CERTIFICATES",
	} {
		rendered = regexp.MustCompile(pattern).ReplaceAllString(rendered, text)
	}
	return rendered
}

func TestRendered(t *testing.T) {
	for name, values := range sets(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rendered, problems, failed := template(t, "--values", values)
			if failed {
				t.Fatal(problems)
			}
			golden := filepath.Join(folder, "testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(steady(rendered)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got := steady(rendered); got != string(want) {
				t.Errorf("%s differs: go tool task chart -- -update, and look at what git diff shows", golden)
			}
			examine(t, rendered)
		})
	}
}

// Lint renders NOTES.txt too.
func TestLint(t *testing.T) {
	for name, values := range sets(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, problems, failed := helm(t, "lint", "--strict", "--kube-version", version, "--values", values, folder)
			if failed || strings.Contains(problems, "Fail:") {
				t.Errorf("%s%s", out, problems)
			}
		})
	}
}
