package local_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution/local"
)

// fakePython makes below a prefix a script that passes for an interpreter that lives
// there, and links to the system's. It returns the script.
func fakePython(t *testing.T, prefix string) string {
	t.Helper()
	script, executable := filepath.Join(prefix, "python"), filepath.Join(prefix, "bin", "python3")
	text := fmt.Sprintf("#!/bin/sh\ncat <<'END'\n"+`{"Version": [3, 12, 1], "Executable": %q, "Prefixes": [%q], "Ctypes": true}`+"\nEND\n", executable, prefix)
	if err := errors.Join(os.MkdirAll(filepath.Dir(executable), 0o755), os.Symlink(systemPython, executable), os.WriteFile(script, []byte(text), 0o755)); err != nil {
		t.Fatal(err)
	}
	return script
}

// outside makes a folder of which the sandbox has none of its own, as of /tmp.
func outside(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/var/tmp", "vivarium-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// An interpreter in PATH below a home, such as one of pyenv, shows its own folder, and
// nothing else of that home.
func TestInterpreterBelowAHome(t *testing.T) {
	home := outside(t)
	prefix := filepath.Join(home, ".pyenv", "versions", "3.12.1")
	script := fakePython(t, prefix)
	shims := filepath.Join(home, ".pyenv", "shims")
	for _, path := range []string{
		filepath.Join(prefix, "lib", "python3.12", "site-packages", "secret"), filepath.Join(home, ".pyenv", "version"),
		filepath.Join(home, ".pyenv", "versions", "3.11.7", "secret"), filepath.Join(home, ".ssh", "id"), filepath.Join(home, "secret"),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("secret"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(shims, 0o755), os.Symlink(script, filepath.Join(shims, "python3"))); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("PATH", shims+":/usr/bin:/bin")
	got := strings.Fields(run(t, newBackend(t, fmt.Sprintf(`import os
for folder, folders, files in os.walk(%q):
    for name in folders + files: print(os.path.join(folder, name))
`, home), func(o *local.Options) { o.Python = "" })))
	want := []string{filepath.Join(home, ".pyenv"), filepath.Join(home, ".pyenv", "versions"), prefix}
	for _, name := range []string{"bin", "bin/python3", "lib", "lib/python3.12", "lib/python3.12/site-packages", "lib/python3.12/site-packages/secret", "python"} {
		want = append(want, filepath.Join(prefix, name))
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is seen (-want +got):\n%s", diff)
	}
}

// The server's groups give programs no access if the server is root. Another user's
// process cannot leave its groups. So programs can read what these groups may read, of
// what the sandbox shows. They see nothing more, and write nothing.
func TestGroupsOfTheServer(t *testing.T) {
	const group, setting = 64123, "VIVARIUM_TEST_PREFIX"
	prefix := os.Getenv(setting)
	if prefix == "" {
		if os.Geteuid() != 0 {
			return // only root can give files to a group that it is not in
		}
		prefix = filepath.Join(outside(t), "prefix")
		fakePython(t, prefix)
		for name, mode := range map[string]os.FileMode{"readable": 0o640, "writable": 0o660, "../elsewhere": 0o660} {
			path := filepath.Join(prefix, name)
			if err := errors.Join(os.WriteFile(path, []byte("secret"), mode), os.Chmod(path, mode), os.Chown(path, 0, group)); err != nil {
				t.Fatal(err)
			}
		}
		for _, user := range []uint32{0, 65534} {
			if !asUser(t, syscall.Credential{Uid: user, Gid: user, Groups: []uint32{group}}, setting+"="+prefix) {
				t.Error("it is not tried")
			}
		}
		return
	}
	got := run(t, newBackend(t, fmt.Sprintf(`import errno
def tried(name, mode):
    try: return open(%q + "/" + name, mode).read()
    except OSError as e: return errno.errorcode[e.errno]
print(tried("readable", "r"), tried("writable", "r"), tried("writable", "r+"), tried("../elsewhere", "r"))
`, prefix), func(o *local.Options) { o.Python = filepath.Join(prefix, "python") }))
	want := "EACCES EACCES EACCES ENOENT\n"
	if os.Geteuid() != 0 {
		want = "secret secret EROFS ENOENT\n"
	}
	if got != want {
		t.Errorf("as user %d: %q, not %q", os.Geteuid(), got, want)
	}
}
