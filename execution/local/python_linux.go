package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// askTime bounds the questions to an interpreter outside of the sandbox.
const askTime = 20 * time.Second

// facts.py tells what an interpreter is.
//
//go:embed facts.py
var factsSource string

// python is an interpreter, and what it needs to be seen inside.
type python struct {
	path   string   // of the executable, inside
	trees  []string // folders besides /usr that it lives in
	digest string
	asked  bool // preload is known
	// preload names the modules that are worth importing ahead and are there.
	preload []string
}

// facts is what facts.py prints.
type facts struct {
	Version    []int
	Executable string
	Prefixes   []string
	Preload    []string
	Ctypes     bool
}

// findPython finds the interpreter that the options name. Those of the system
// itself are not asked who they are: the sandbox finds out.
func (b *Backend) findPython(ctx context.Context) (python, error) {
	if b.opts.Rootfs != "" {
		return b.findInRootfs()
	}
	name := b.opts.Python
	if name == "" {
		name = "python3"
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return python{}, noPython(b.opts.Python, err)
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return python{}, noPython(b.opts.Python, err)
	}
	digest, err := identify(path, target)
	if err != nil {
		return python{}, err
	}
	if known, ok := b.known(digest); ok {
		return known, nil
	}
	p := python{path: path, digest: digest}
	if !isBelow(path, "/usr") && !isBelow(path, "/bin") || !isBelow(target, "/usr") {
		if err := p.ask(ctx, name); err != nil {
			return python{}, err
		}
	}
	b.remember(p)
	return p, nil
}

// findInRootfs finds the interpreter in a root file system that was given.
func (b *Backend) findInRootfs() (python, error) {
	candidates := []string{"/usr/local/bin/python3", "/usr/bin/python3", "/bin/python3"}
	if b.opts.Python != "" {
		candidates = []string{b.opts.Python}
	}
	if status, err := os.Stat(filepath.Join(b.opts.Rootfs, "usr")); err != nil || !status.IsDir() {
		return python{}, unavailable(errors.Join(err), "LOCAL_ROOTFS is %q: must be a folder with a root file system, and has no folder usr", b.opts.Rootfs)
	}
	for _, path := range candidates {
		place := filepath.Join(b.opts.Rootfs, path)
		if _, err := os.Lstat(place); err != nil {
			continue
		}
		digest, err := identify(b.opts.Rootfs, place)
		if err != nil {
			return python{}, err
		}
		p := python{path: path, digest: digest}
		b.remember(p)
		return p, nil
	}
	return python{}, unavailable(nil, "LOCAL_ROOTFS is %q: has no Python at %s; LOCAL_PYTHON names its place", b.opts.Rootfs, strings.Join(candidates, ", "))
}

// identify makes a digest of what an interpreter is now.
func identify(paths ...string) (string, error) {
	sum := sha256.New()
	for _, path := range paths {
		var status unix.Stat_t
		if err := unix.Lstat(path, &status); err != nil {
			return "", unavailable(err, "%s cannot be read", path)
		}
		_, _ = fmt.Fprintln(sum, path, status.Dev, status.Ino, status.Mtim.Nano(), status.Size)
	}
	return "local:" + hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

func isBelow(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// ask has an interpreter tell who it is, outside of the sandbox: it is the
// user's own, and no program's code runs in it.
func (p *python) ask(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, "-I", "-c", factsSource)
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return unavailable(fmt.Errorf("%w: %.300s", err, stderr.String()), "%s is no Python that runs", name)
	}
	var f facts
	if err := json.Unmarshal(out, &f); err != nil {
		return unavailable(err, "%s is no Python", name)
	}
	if fault := f.fault(); fault != "" {
		return unavailable(nil, "%s %s", f.Executable, fault)
	}
	p.path, p.preload, p.asked = f.Executable, f.Preload, true
	for _, prefix := range f.Prefixes {
		if isBelow(prefix, "/usr") {
			continue
		}
		if fault := prefixFault(prefix); fault != "" {
			return unavailable(nil, "LOCAL_PYTHON: %s lives in %s, %s; take one in a virtual environment", f.Executable, prefix, fault)
		}
		p.trees = append(p.trees, prefix)
	}
	slices.Sort(p.trees)
	p.trees = slices.CompactFunc(p.trees, func(below, above string) bool { return isBelow(below, above) || below == above })
	return nil
}

// fault says what is wrong with an interpreter, or nothing.
func (f facts) fault() string {
	const major, minor = 3, 9
	switch {
	case len(f.Version) < 2 || f.Version[0] < major || f.Version[0] == major && f.Version[1] < minor:
		return fmt.Sprintf("is Python %s: must be %d.%d or newer; LOCAL_PYTHON names another", strings.Trim(strings.ReplaceAll(fmt.Sprint(f.Version), " ", "."), "[]"), major, minor)
	case !f.Ctypes:
		return "lacks the module ctypes, which the sandbox needs: on Debian and Ubuntu install python3, of which python3-minimal is a part"
	}
	return ""
}

// prefixFault says why a folder must not be shown to programs.
func prefixFault(prefix string) string {
	var homes []string
	if home, err := os.UserHomeDir(); err == nil {
		homes = append(homes, home)
	}
	if me, err := user.Current(); err == nil {
		homes = append(homes, me.HomeDir)
	}
	switch {
	case slices.Contains([]string{"/", "/home", "/root", "/etc", "/var", "/run", "/opt", "/mnt", "/media", "/srv"}, prefix):
		return "which programs must not see as a whole"
	case slices.ContainsFunc([]string{"/tmp", "/workspace", "/dev", "/proc", "/sys"}, func(own string) bool { return isBelow(prefix, own) }):
		return "where a sandbox has a folder of its own"
	case slices.ContainsFunc(homes, func(home string) bool { return isBelow(home, prefix) }):
		return "which is above or the same as your home"
	}
	return ""
}

// noPython explains that there is no interpreter.
func noPython(asked string, err error) error {
	if asked != "" {
		return unavailable(err, "LOCAL_PYTHON is %q: must be the path of a Python, or a name in PATH", asked)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return unavailable(err, "there is no python3 in PATH: install it (Debian, Ubuntu: sudo apt-get install python3; Fedora: sudo dnf install python3), or set LOCAL_PYTHON to a Python's path")
	}
	return unavailable(err, "python3 cannot be used")
}
