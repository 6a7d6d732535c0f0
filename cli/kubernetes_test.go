package cli_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/vivarium-sandbox/vivarium/cli"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKubernetesWrongArguments(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, link.CAFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ args, want string }{
		"pod-init: no folder":      {"pod-init key", "accepts 2 arg(s), received 1"},
		"pod-init: no key folder":  {"pod-init /no/such/folder/key " + t.TempDir(), "the pod's key: open /no/such/folder/key: no such file"},
		"pod-init: no such folder": {"pod-init key /no/such/folder", "the pod's files: open /no/such/folder/"},
		"files-init: no volume":    {"files-init /no/such/volume/files", "mkdir /no/such/volume/files: no such file"},
		"certs: no place":          {"certs", "the certificates have no place to go: pass --folder, --secret or both"},
		"certs: an argument":       {"certs now", `"now"`},
		"certs: unknown flag":      {"certs --frobnicate", "unknown flag: --frobnicate"},
		"certs: a release":         {"certs --secret link --release a/b", `--release is "a/b": must be lower-case letters, digits, - and .`},
		"certs: a name":            {"certs --secret link --dns-name ok.svc,-x", `--dns-name is "-x": must be`},
		"certs: a secret":          {"certs --secret A", `--secret is "A": must be`},
		"certs: a namespace":       {"certs --secret link --namespace a_b", `--namespace is "a_b": must be`},
		"certs: no secret":         {"certs --folder " + folder + " --namespace a", "--namespace is of a Secret: pass --secret too"},
		"certs: no time":           {"certs --secret link --days 0", "--days is 0: must be from 1 to 36500"},
		"certs: too much time":     {"certs --secret link --ca-days 40000", "--ca-days is 40000: must be from 1 to 36500"},
		"certs: a CA without key":  {"certs --folder " + folder, "--folder: there is a CA without its key: open " + folder + "/ca.key"},
		"seccomp: no such folder":  {"seccomp --install /proc/none", "--install: mkdir /proc/none"},
		"seccomp: a flag's folder": {"seccomp --install", "flag needs an argument: --install"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, nil, "", append([]string{"kubernetes"}, strings.Fields(test.args)...)...).want(t, 1, "vivarium: ", test.want)
		})
	}
}

// The termination message has the facts of the node and the pin of the key, which is new.
func TestPodInit(t *testing.T) {
	folder := t.TempDir()
	path, message := filepath.Join(folder, "key"), filepath.Join(folder, "message")
	args := []string{"kubernetes", "pod-init", path, folder, "--message", message}
	run(t, nil, "", args...).want(t, 0)
	facts, err := link.ParseFacts(read(t, message))
	if err != nil || facts.Kernel == "" || facts.Arch == "" {
		t.Errorf("%+v (%v)", facts, err)
	}
	if !strings.Contains(read(t, path), "PRIVATE KEY") {
		t.Error("there is no key")
	}
	if read(t, folder, "link.py") != link.Program() || !strings.Contains(read(t, folder, "hosts"), "127.0.0.1 localhost sandbox\n") {
		t.Error("the files are others")
	}
	for _, name := range []string{"0.ahead", "1.ahead"} { // for runs, and for sessions
		if read(t, folder, name) == "" {
			t.Errorf("%s is empty", name)
		}
	}
	run(t, nil, "", args...).want(t, 1, "the pod's key: open "+path+": file exists")
}

// If the pin cannot be reported, the container can be started again.
func TestPodInitWithoutMessage(t *testing.T) {
	folder := t.TempDir()
	args := []string{"kubernetes", "pod-init", filepath.Join(folder, "key"), folder, "--message"}
	run(t, nil, "", append(args, folder)...).want(t, 1, "--message: open "+folder+": is a directory")
	run(t, nil, "", append(args, filepath.Join(folder, "message"))...).want(t, 0)
}

// A volume that everyone can write gets a folder that only the server can, and keeps it.
func TestFilesInit(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "files")
	for range 2 {
		run(t, nil, "", "kubernetes", "files-init", folder).want(t, 0)
		if status, err := os.Stat(folder); err != nil || status.Mode() != os.ModeDir|0o700 {
			t.Errorf("%v (%v)", status, err)
		}
	}
}

// Certificates of a folder can be used at once. The next ones have the same CA, and whatever
// else ca.crt has.
func TestCerts(t *testing.T) {
	folder, other := t.TempDir(), t.TempDir()
	certs := func(folder string, args ...string) outcome {
		return run(t, nil, "", append([]string{"kubernetes", "certs", "--folder", folder}, args...)...)
	}
	certs(folder, "--dns-name", "vivarium.svc").want(t, 0, "Wrote the certificates to "+folder+"; the CA is valid until 20")
	certs(other).want(t, 0)
	both := read(t, folder, link.CAFile) + read(t, other, link.CAFile)
	if err := os.WriteFile(filepath.Join(folder, link.CAFile), []byte(both), 0o600); err != nil {
		t.Fatal(err)
	}
	before := read(t, folder, link.CertificateFile)
	certs(folder).want(t, 0)
	if read(t, folder, link.CAFile) != both || read(t, folder, link.CertificateFile) == before {
		t.Error("the CA changed, or the certificate did not")
	}
	if _, err := link.LoadCredentials(folder); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"ca.key", link.KeyFile} {
		if status, err := os.Stat(filepath.Join(folder, name)); err != nil || status.Mode() != 0o600 {
			t.Errorf("%s: %v (%v)", name, status.Mode(), err)
		}
	}
	if left, err := filepath.Glob(folder + "/.*"); err != nil || len(left) != 0 {
		t.Errorf("%q are left (%v)", left, err)
	}
}

// A Secret has what a server needs, and not the key of the CA.
func TestCertsAsSecret(t *testing.T) {
	o := run(t, nil, "", "kubernetes", "certs", "--secret", "vivarium-link", "--namespace", "123")
	head := "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"vivarium-link\"\n  namespace: \"123\"\ntype: kubernetes.io/tls\ndata:\n"
	data, found := strings.CutPrefix(o.stdout, head)
	if !found || o.code != 0 || o.stderr != "" {
		t.Fatalf("%+v", o)
	}
	folder := t.TempDir()
	var names []string
	for _, line := range regexp.MustCompile(`(?m)^  (\S+): (\S+)$`).FindAllStringSubmatch(data, -1) {
		content, err := base64.StdEncoding.DecodeString(line[2])
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, line[1])
		if err := os.WriteFile(filepath.Join(folder, line[1]), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(names) != 3 {
		t.Errorf("it has %q", names)
	}
	if _, err := link.LoadCredentials(folder); err != nil {
		t.Error(err)
	}
}

// The installer writes the profile that is printed, and ends normally at a signal.
func TestSeccompProfile(t *testing.T) {
	printed := run(t, nil, "", "kubernetes", "seccomp")
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(printed.stdout), &profile); err != nil || printed.code != 0 || profile.DefaultAction != specs.ActErrno {
		t.Fatalf("%+v (%v)", printed, err)
	}
	folder := filepath.Join(t.TempDir(), "vivarium")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wrote, stderr := io.Pipe()
	system := cli.System{Lookup: lookup(t, nil), Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: stderr}
	code := make(chan int, 1)
	go func() {
		code <- cli.Run(ctx, []string{"kubernetes", "seccomp", "--install", folder}, system)
		_ = stderr.Close()
	}()
	line, err := bufio.NewReader(wrote).ReadString('\n')
	if err != nil || line != "Wrote "+folder+"/sandbox.json.\n" {
		t.Errorf("%q (%v)", line, err)
	}
	if read(t, folder, "sandbox.json") != printed.stdout {
		t.Error("the file has another profile")
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}
