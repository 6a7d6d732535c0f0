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

// askTime bounds the run of facts.py outside of the sandbox.
const askTime = 20 * time.Second

// facts.py describes an interpreter.
//
//go:embed facts.py
var factsSource string

// python is an interpreter, and what the sandbox must show for it.
type python struct {
	path   string   // of the executable, inside
	trees  []string // its folders and files outside of /usr
	digest string
	named  string // identifies what the options name, which may be a script that starts an interpreter
	found  string // identifies the interpreter itself; "" if facts.py did not run
	asked  bool   // preload is known
	// preload has the names of installed modules that are worth importing ahead.
	preload  []string
	compiled *compiled
}

// facts is what facts.py prints.
type facts struct {
	Version    []int
	Executable string
	Prefixes   []string
	Preload    []string
	Ctypes     bool
}

// findPython finds the interpreter that the options name. It does not run facts.py for
// the system's own: the sandbox finds out the same.
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
	named, err := identify(path, target)
	if err != nil {
		return python{}, err
	}
	shim := describeShim(path)
	named += shim
	if known, ok := b.knownBy(named); ok {
		return known, nil
	}
	p := python{path: path, named: named, compiled: newCompiled()}
	if !isBelow(path, "/usr") && !isBelow(path, "/bin") || !isBelow(target, "/usr") || !strings.HasPrefix(filepath.Base(target), "python3") {
		if err := p.askThrough(ctx, shim, name); err != nil {
			return python{}, err
		}
		if p.found = p.identity(); p.found == "" {
			return python{}, unavailable(nil, "%s is not a Python that a sandbox can show: %s has gone", name, p.path)
		}
	}
	p.digest = digestOf(p.named, p.found)
	b.remember(p)
	return p, nil
}

// identity identifies an interpreter by its executable and its folders. It is "" if they
// have gone.
func (p *python) identity() string {
	target, err := filepath.EvalSymlinks(p.path)
	if err != nil {
		return ""
	}
	all, err := identify(append([]string{p.path, target}, p.trees...)...)
	if err != nil {
		return ""
	}
	return all
}

// isStill reports whether an interpreter is unchanged.
func (p *python) isStill() bool { return p.found == "" || p.found == p.identity() }

// findInRootfs finds the interpreter in LOCAL_ROOTFS.
func (b *Backend) findInRootfs() (python, error) {
	candidates := []string{"/usr/local/bin/python3", "/usr/bin/python3", "/bin/python3"}
	if b.opts.Python != "" {
		candidates = []string{b.opts.Python}
	}
	if status, err := os.Stat(filepath.Join(b.opts.Rootfs, "usr")); err != nil || !status.IsDir() {
		return python{}, unavailable(errors.Join(err), "LOCAL_ROOTFS is %q: must be a folder with a root file system, and has no folder usr", b.opts.Rootfs)
	}
	if isOwnRoot(b.opts.Rootfs) {
		return python{}, unavailable(nil, "LOCAL_ROOTFS is %q: must not be this machine's own root; if it is empty, programs see /usr", b.opts.Rootfs)
	}
	for _, path := range candidates {
		place := filepath.Join(b.opts.Rootfs, path)
		if _, err := os.Lstat(place); err != nil {
			continue
		}
		all := []string{b.opts.Rootfs, place}
		if target := filepath.Join(b.opts.Rootfs, resolveIn(b.opts.Rootfs, path)); isThere(target) {
			all = append(all, target)
		}
		named, err := identify(all...)
		if err != nil {
			return python{}, err
		}
		if known, ok := b.knownBy(named); ok {
			return known, nil
		}
		p := python{path: path, named: named, digest: digestOf(named), compiled: newCompiled()}
		b.remember(p)
		return p, nil
	}
	return python{}, unavailable(nil, "LOCAL_ROOTFS is %q: has no Python at %s; set LOCAL_PYTHON to its path", b.opts.Rootfs, strings.Join(candidates, ", "))
}

// resolveIn follows a path's links, as a process with that root would. It does not follow links
// of folders that are absolute.
func resolveIn(root, path string) string {
	const maxLinks = 40 // as the kernel follows
	for range maxLinks {
		target, err := os.Readlink(filepath.Join(root, path))
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return path
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isOwnRoot reports whether a folder is this process's own root, under any path.
func isOwnRoot(folder string) bool {
	own, err := os.Stat("/")
	if err != nil {
		return false
	}
	given, err := os.Stat(folder)
	return err == nil && os.SameFile(own, given)
}

// identify returns a text that changes when a file at one of the paths does.
func identify(paths ...string) (string, error) {
	var all strings.Builder
	for _, path := range paths {
		var status unix.Stat_t
		if err := unix.Lstat(path, &status); err != nil {
			return "", unavailable(err, "%s cannot be read", path)
		}
		_, _ = fmt.Fprintln(&all, path, status.Dev, status.Ino, status.Mtim.Nano(), status.Size)
	}
	return all.String(), nil
}

// digestOf returns a digest of what identifies an interpreter.
func digestOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return "local:" + hex.EncodeToString(sum[:16])
}

func isBelow(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// askThrough asks the interpreter that a shim chose before, or else the shim itself. shim is
// what describeShim returns; it is empty for an interpreter.
func (p *python) askThrough(ctx context.Context, shim, name string) error {
	if shim == "" {
		return p.ask(ctx, name)
	}
	choices := openCache("vivarium-shims")
	if choice := string(choices.get(shim)); filepath.IsAbs(choice) {
		chosen := *p
		chosen.path = choice
		if chosen.ask(ctx, name) == nil {
			*p = chosen
			return nil
		}
	}
	err := p.ask(ctx, name)
	if err == nil {
		choices.put(shim, []byte(p.path))
	}
	return err
}

// ask runs facts.py with an interpreter, outside of the sandbox. That is safe: the
// interpreter is the user's own, and runs no program's code.
func (p *python) ask(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, "-I", "-c", factsSource)
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return unavailable(fmt.Errorf("%w: %.300s", err, stderr.String()), "%s is not a Python that runs", name)
	}
	var f facts
	if err := json.Unmarshal(out, &f); err != nil {
		return unavailable(err, "%s is not a Python", name)
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
			return unavailable(nil, "the Python %s is in %s, %s; set LOCAL_PYTHON to another, such as one of a virtual environment below your home, or /usr/bin/python3", f.Executable, prefix, fault)
		}
		p.trees = append(p.trees, shown(prefix)...)
	}
	p.trees = outermost(p.trees)
	if !p.isSeen() {
		// The path is a link that the sandbox does not show.
		if target, err := filepath.EvalSymlinks(p.path); err == nil {
			p.path = target
		}
	}
	return nil
}

// isSeen reports whether the sandbox shows an interpreter under its path.
func (p *python) isSeen() bool {
	return slices.ContainsFunc(append([]string{"/bin", "/usr"}, p.trees...), func(tree string) bool { return isBelow(p.path, tree) })
}

// outermost returns the paths that are not below others.
func outermost(paths []string) []string {
	slices.Sort(paths)
	var all []string
	for _, path := range paths {
		if !slices.ContainsFunc(all, func(above string) bool { return isBelow(path, above) }) {
			all = append(all, path)
		}
	}
	return all
}

// shown returns what the sandbox shows of an interpreter's folder. A virtual environment
// may be in a project's own folder: then only its own files are shown.
func shown(prefix string) []string {
	if _, err := os.Lstat(filepath.Join(prefix, "pyvenv.cfg")); err != nil {
		return []string{prefix}
	}
	var all []string
	itself, err := filepath.EvalSymlinks(prefix)
	if err != nil {
		return nil // it has gone
	}
	for _, name := range []string{"bin", "include", "lib", "lib64", "share", "pyvenv.cfg"} {
		path := filepath.Join(prefix, name)
		if target, err := filepath.EvalSymlinks(path); err == nil && isBelow(target, itself) { // lib64 is a link to lib
			all = append(all, path)
		}
	}
	return all
}

// fault returns what is wrong with an interpreter, or "".
func (f facts) fault() string {
	const major, minor = 3, 9
	switch {
	case len(f.Version) < 2 || f.Version[0] < major || f.Version[0] == major && f.Version[1] < minor:
		return fmt.Sprintf("is Python %s: must be %d.%d or newer; set LOCAL_PYTHON to another", strings.Trim(strings.ReplaceAll(fmt.Sprint(f.Version), " ", "."), "[]"), major, minor)
	case !f.Ctypes:
		return "lacks the module ctypes, which the sandbox needs: on Debian and Ubuntu install python3, of which python3-minimal is a part"
	}
	return ""
}

// prefixFault returns why a folder must not be shown to programs, or "".
func prefixFault(prefix string) string {
	for _, own := range []string{"/tmp", "/workspace", "/dev", "/proc", "/sys"} {
		if isBelow(prefix, own) {
			return "and a sandbox has a " + own + " of its own"
		}
	}
	switch {
	case slices.Contains([]string{"/", "/home", "/root", "/etc", "/var", "/run", "/opt", "/mnt", "/media", "/srv"}, prefix):
		return "which programs must not see as a whole"
	case slices.ContainsFunc(homes(), func(home string) bool { return isBelow(home, prefix) }):
		return "which is a user's home or above one"
	}
	return ""
}

// homes returns the home folders of this machine's users, under every known path.
func homes() []string {
	var all []string
	if home, err := os.UserHomeDir(); err == nil {
		all = append(all, home)
	}
	users, _ := os.ReadFile("/etc/passwd") // not all users are in it, but this one is known
	for line := range strings.Lines(string(users)) {
		const homeField = 5 // of passwd(5)
		if fields := strings.Split(line, ":"); len(fields) > homeField && filepath.IsAbs(fields[homeField]) {
			all = append(all, filepath.Clean(fields[homeField]))
		}
	}
	if me, err := user.Current(); err == nil {
		all = append(all, me.HomeDir)
	}
	for _, home := range all {
		if target, err := filepath.EvalSymlinks(home); err == nil {
			all = append(all, target)
		}
	}
	return slices.DeleteFunc(all, func(home string) bool { return home == "/" })
}

// noPython returns the error of a missing interpreter.
func noPython(asked string, err error) error {
	if asked != "" {
		return unavailable(err, "LOCAL_PYTHON is %q: must be the path of a Python, or a name in PATH", asked)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return unavailable(err, "there is no python3 in PATH: install it (Debian, Ubuntu: sudo apt-get install python3; Fedora: sudo dnf install python3), or set LOCAL_PYTHON to a Python's path")
	}
	return unavailable(err, "python3 cannot be used")
}
