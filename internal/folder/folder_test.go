package folder_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/internal/folder"
)

// stranger is a user who is neither root nor the one that the tests run as.
const stranger = 64123

// mkdir makes a folder with a mode, whatever the umask.
func mkdir(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func chown(t *testing.T, path string) {
	t.Helper()
	if err := os.Lchown(path, stranger, stranger); err != nil {
		t.Fatal(err)
	}
}

// scene is what lies below a folder of the test's own, and what is asked for there.
type scene struct {
	things  string // see furnish
	path    string // below the root
	refused folder.Access
	want    string // the real path below the root, or what is in the error
}

// furnish makes what a text lists, with semicolons between: PATH=MODE is a folder,
// PATH>TARGET a link, PATH a file, and PATH! is given to a stranger.
func furnish(t *testing.T, root, things string) {
	t.Helper()
	for thing := range strings.SplitSeq(things, "; ") {
		place := root + "/" + thing
		switch at := strings.IndexAny(place, "=>!"); {
		case thing == "":
		case at < 0:
			if err := os.WriteFile(place, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		case place[at] == '=':
			mode, err := strconv.ParseUint(place[at+1:], 8, 32)
			if err != nil {
				t.Fatal(err)
			}
			mkdir(t, place[:at], os.FileMode(mode&0o777)|os.FileMode(mode>>9)*os.ModeSticky)
		case place[at] == '>':
			link(t, strings.ReplaceAll(place[at+1:], "ROOT", root), place[:at])
		default:
			chown(t, place[:at])
		}
	}
}

// check checks a folder, and that an error names what to do.
func (s scene) check(t *testing.T, good bool) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(root, "root")
	mkdir(t, root, 0o700)
	furnish(t, root, s.things)
	got, err := folder.Make(root+"/"+s.path, s.refused)
	if good {
		if err != nil || got != filepath.Join(root, s.want) {
			t.Errorf("got %q, %v", got, err)
		}
		return
	}
	var fault *folder.Error
	if want := strings.ReplaceAll(s.want, "ROOT", root); !errors.As(err, &fault) || !strings.Contains(err.Error(), want) {
		t.Errorf("%q is not in %v", want, err)
	}
}

func TestFolders(t *testing.T) {
	for name, s := range map[string]scene{
		"missing":                   {"", "a/b/c", folder.Private, "a/b/c"},
		"private":                   {"a=700", "a", folder.Private, "a"},
		"others may read":           {"a=755", "a", folder.NoWriters, "a"},
		"below a sticky folder":     {"tmp=1777", "tmp/a", folder.Private, "tmp/a"},
		"odd spelling":              {"", "a/./b//c/", folder.Private, "a/b/c"},
		"by way of a link":          {"real=700; link>real", "link/a", folder.Private, "real/a"},
		"by way of an absolute one": {"real=700; link>ROOT/real", "link/a", folder.Private, "real/a"},
		// The kernel goes to x/z.
		"by way of a link upwards": {"x=700; x/y=700; deep>x/y; link>deep/../z", "link/a", folder.Private, "x/z/a"},
	} {
		t.Run(name, func(t *testing.T) { s.check(t, true) })
	}
}

func TestFoldersOfOthers(t *testing.T) {
	scenes := map[string]scene{
		"others may write":            {"a=702", "a", folder.NoWriters, "ROOT/a can be written by other users (mode 0702): run `chmod 700 ROOT/a`"},
		"everybody's, and sticky":     {"a=1777", "a", folder.NoWriters, "(mode 01777): run `chmod 700 ROOT/a`"},
		"others may read":             {"a=750", "a", folder.Private, "ROOT/a is open to other users (mode 0750): run `chmod 700 ROOT/a`"},
		"a file":                      {"a", "a", folder.NoWriters, "ROOT/a is not a folder"},
		"a link":                      {"b=700; a>b", "a", folder.NoWriters, "ROOT/a is a symbolic link: name the folder that it leads to (ROOT/b)"},
		"below everybody's":           {"b=777", "b/a", folder.NoWriters, "ROOT/b can be written by other users (mode 0777), who can replace ROOT/b/a in it: run `chmod go-w ROOT/b`"},
		"a link to below everybody's": {"b=777; b/c=700; link>b/c", "link/a", folder.NoWriters, "ROOT/b can be written by other users (mode 0777)"},
		"a link that is everybody's":  {"b=777; real=700; b/link>../real", "b/link/a", folder.NoWriters, "ROOT/b can be written by other users (mode 0777)"},
	}
	if os.Geteuid() == 0 { // who alone can give a folder away
		scenes["another user's"] = scene{"a=700; a!", "a", folder.NoWriters, "ROOT/a belongs to uid 64123, and this server runs as uid 0: name a folder of its own, or, if you trust what is in this one, run `chown -R 0 ROOT/a`"}
		scenes["in another user's"] = scene{"b=755; b!", "b/a", folder.NoWriters, "ROOT/b belongs to uid 64123, who can replace ROOT/b/a in it: run `chown 0 ROOT/b`"}
		scenes["by another user's link"] = scene{"tmp=1777; real=700; tmp/link>../real; tmp/link!", "tmp/link/a", folder.NoWriters, "ROOT/tmp/link is a symbolic link of uid 64123"}
	} else {
		scenes["root's"] = scene{"", strings.Repeat("../", 32) + "usr", folder.NoWriters, "/usr belongs to uid 0, and this server runs as uid"}
	}
	for name, s := range scenes {
		t.Run(name, func(t *testing.T) { s.check(t, false) })
	}
}

// A process's group with the number of its user belongs only to that user.
func TestOwnGroup(t *testing.T) {
	place := filepath.Join(t.TempDir(), "a")
	mkdir(t, place, 0o770)
	own := os.Getegid()
	if err := os.Chown(place, -1, own); err != nil {
		t.Fatal(err)
	}
	if err := folder.Check(place, folder.NoWriters); (err == nil) != (own == os.Geteuid()) {
		t.Errorf("its own group may write (%d): %v", own, err)
	}
	if err := folder.Check(place, folder.Private); err == nil {
		t.Error("what must be private is open to a group")
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(place, -1, stranger); err != nil {
		t.Fatal(err)
	}
	if err := folder.Check(place, folder.NoWriters); err == nil {
		t.Error("another group may write")
	}
}

// A cycle of links is an error.
func TestLinksInACircle(t *testing.T) {
	root := t.TempDir()
	link(t, "b", root+"/a")
	link(t, "a", root+"/b")
	if got, err := folder.Make(root+"/a/x", folder.Private); err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFiles(t *testing.T) {
	root := t.TempDir()
	for name, mode := range map[string]os.FileMode{"good": 0o644, "open": 0o606} {
		if err := errors.Join(os.WriteFile(root+"/"+name, nil, 0o600), os.Chmod(root+"/"+name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(t, root+"/folder", 0o700)
	link(t, "good", root+"/link")
	for name, want := range map[string]string{
		"good": "", "open": "can be written by other users (mode 0606): run `chmod 600 ",
		"folder": "", "link": "is a symbolic link: remove it", "missing": "no such file",
	} {
		err := folder.CheckFile(root + "/" + name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
