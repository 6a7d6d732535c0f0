package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// onMachine gives the path of what starts the server on a machine that differs
// from this one by what a script does to its mounts.
func onMachine(t *testing.T, binary, prepare string) string {
	t.Helper()
	wrapper := filepath.Join(folderOf(t, *userFlag), "vivarium")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount sh -ec '%s\nexec \"$0\" \"$@\"' %s \"$@\"\n", prepare, binary)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return wrapper
}

// On a full disk programs run, and what cannot be kept is refused in words.
func TestLocalDiskFull(t *testing.T) {
	folder := folderOf(t, *userFlag)
	s := startServerBinary(t, onMachine(t, shared.binary, fmt.Sprintf(
		"mount -t tmpfs -o size=64k,mode=1777 none %s\ninstall -d -o %d %[1]s/files\nhead -c 100k /dev/zero > %[1]s/fill || true", folder, *userFlag)),
		"TMPDIR="+folder, "FILE_STORAGE_DIR="+folder+"/files", "POOL_SIZE=1")
	program{stdout: "42\n"}.check(t, mustRun(t, s, request{"code": "print(6*7)"}))
	const full = "The disk of the file store is full. Delete files, or ask the operator of the server to free space"
	got := mustRun(t, s, request{"code": "open('a.txt', 'w').write('x' * 9999)"})
	if len(got.SkippedFiles) != 1 || got.SkippedFiles[0].Path != "a.txt" || got.SkippedFiles[0].Reason != "it could not be stored: "+full {
		t.Errorf("a result: %+v", got.SkippedFiles)
	}
	form := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nsome text\r\n--b--\r\n"
	if status, text := s.send(t, http.MethodPost, "/v1/files", "multipart/form-data; boundary=b", strings.NewReader(form)); status != http.StatusInsufficientStorage || !strings.Contains(text, full) {
		t.Errorf("an upload: status %d, %s", status, text)
	}
	want := "no session can be kept in " + folder + "/vivarium-sessions-" + fmt.Sprint(*userFlag) + ", where the disk is full: set TMPDIR to another folder"
	if status, text := s.send(t, http.MethodPost, "/v1/sessions", "application/json", strings.NewReader("{}")); status != http.StatusServiceUnavailable || !strings.Contains(text, want) {
		t.Errorf("a session: status %d, %s", status, text)
	}
}

// Where the temporary folder is read-only the server says which setting names another
// for files; with one, programs run.
func TestLocalReadOnlyDisk(t *testing.T) {
	folder := folderOf(t, *userFlag)
	binary := onMachine(t, shared.binary, fmt.Sprintf("mount --bind %s %[1]s\nmount -o remount,bind,ro %[1]s", folder))
	s, err := launchBinary(binary, []string{"TMPDIR=" + folder})
	if err == nil {
		t.Errorf("the server starts (%v)", s.end())
	} else if want := "FILE_STORAGE_DIR: must name a folder that the server can make and write: "; !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	doctor := exec.CommandContext(t.Context(), binary, "doctor")
	doctor.Env = append(os.Environ(), with(slimImage, "TMPDIR="+folder)...)
	out, err := doctor.CombinedOutput()
	for _, want := range []string{"missing  no files can be stored: FILE_STORAGE_DIR: must name", "missing  sessions are not available: no session can be kept in"} {
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%q is not in (%v)\n%s", want, err, out)
		}
	}
	s = startServerBinary(t, binary, "TMPDIR="+folder, "FILE_STORAGE_DIR="+folderOf(t, *userFlag), "POOL_SIZE=1")
	program{stdout: "42\n", files: "a.txt"}.check(t, mustRun(t, s, request{"code": "open('a.txt', 'w').write('x'); print(6*7)"}))
	if status, text := s.send(t, http.MethodPost, "/v1/sessions", "application/json", strings.NewReader("{}")); status != http.StatusServiceUnavailable || !strings.Contains(text, "which is read-only: set TMPDIR to another folder") {
		t.Errorf("a session: status %d, %s", status, text)
	}
}

// Where no cgroups are mounted, or those that are cannot be written, programs are
// bounded all the same, and the doctor says by what.
func TestLocalWithoutCgroups(t *testing.T) {
	plain := withoutRace(t, t.TempDir())
	for name, test := range map[string]struct{ prepare, want string }{
		"none":      {"umount --lazy /sys/fs/cgroup", "no cgroups are mounted"},
		"read-only": {"for place in /sys/fs/cgroup/*/; do mount -o remount,bind,ro \"$place\"; done", "this server may not make cgroups"},
	} {
		t.Run(name, func(t *testing.T) {
			binary := onMachine(t, plain, test.prepare)
			doctor := exec.CommandContext(t.Context(), binary, "doctor")
			doctor.Env = append(os.Environ(), onHost(hostPython, "EXECUTOR_BACKEND=local")...)
			out, err := doctor.CombinedOutput()
			if want := "a watching supervisor, without cgroups: " + test.want; err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%q is not in (%v)\n%s", want, err, out)
			}
		})
	}
}

// A root file system without what makes it one is refused in words.
func TestLocalRootfsWithoutSystem(t *testing.T) {
	folder := folderOf(t, *userFlag)
	_, err := startProcess([]string{"LOCAL_ROOTFS=" + folder})
	if want := fmt.Sprintf("LOCAL_ROOTFS is %q: must be a folder with a root file system, and has no folder usr", folder); err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
}

// Output that nobody can have is no success.
func TestLocalOutputIsLost(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), shared.binary, "exec", "print(6*7)")
	cmd.Env = append(os.Environ(), with(slimImage)...)
	cmd.Stdout, cmd.Stderr = full, &stderr
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 125 || !strings.Contains(stderr.String(), "the program's output is lost: ") {
		t.Errorf("%v\n%s", err, stderr.String())
	}
}

// An ordinary user who may hardly have another process is told so.
func TestLocalFewProcesses(t *testing.T) {
	const user = 64999 // who has no other processes
	folder := folderOf(t, user)
	binary := withoutRace(t, folder)
	cmd := exec.CommandContext(t.Context(), "prlimit", "--nproc=16", binary, "exec", "print(6*7)")
	cmd.Dir = folder
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + folder, "EXECUTOR_BACKEND=local", "LOCAL_PYTHON=" + hostPython}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := cmd.CombinedOutput()
	if want := "may have 16, and a sandbox takes 24 more: end some, or raise the limit (ulimit -u)"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%q is not in (%v)\n%s", want, err, out)
	}
}
