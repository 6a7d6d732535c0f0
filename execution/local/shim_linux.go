package local

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// shimsFolder is the name of the folder in which pyenv and asdf have their shims: scripts
// that choose an interpreter and start it, which takes 100 ms.
const shimsFolder = "shims"

// describeShim returns all that a shim's choice depends on, or "" for another file. Only the
// shims of pyenv and asdf are known well enough: any other script may choose by anything.
func describeShim(path string) string {
	if filepath.Base(filepath.Dir(path)) != shimsFolder || !isScript(path) {
		return ""
	}
	root := filepath.Dir(filepath.Dir(path))
	seen := []string{path, root + "/version", root + "/versions", root + "/installs/python"}
	home, _ := os.UserHomeDir()
	working, _ := os.Getwd()
	for _, place := range append(above(working), home) {
		seen = append(seen, place+"/.python-version", place+"/.tool-versions")
	}
	seen = append(seen, home+"/.asdfrc")
	var all strings.Builder
	for _, path := range seen {
		var status unix.Stat_t
		_ = unix.Stat(path, &status) // a missing file has no inode
		_, _ = fmt.Fprintln(&all, path, status.Dev, status.Ino, status.Mtim.Nano(), status.Ctim.Nano(), status.Size)
	}
	environment := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return name != "PATH" && !strings.HasPrefix(name, "PYENV_") && !strings.HasPrefix(name, "ASDF_")
	})
	slices.Sort(environment)
	_, _ = fmt.Fprintf(&all, "%q\n", environment)
	return all.String()
}

// above returns a folder and all those above it.
func above(path string) []string {
	all := []string{path}
	for path != "/" && path != "." && path != "" {
		path = filepath.Dir(path)
		all = append(all, path)
	}
	return all
}

// isScript reports whether a file begins as scripts do.
func isScript(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	start := make([]byte, 2)
	_, err = file.Read(start)
	return err == nil && string(start) == "#!"
}
