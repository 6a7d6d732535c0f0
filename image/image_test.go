package image_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/image"
)

// engine is a fake that records requests.
type engine struct {
	there    []string // images
	labelErr error
	pull     func(ctx context.Context) error
	importer func(rootfs io.Reader) error
	buildErr error

	asked []string
	built *image.Build
}

func (e *engine) Label(_ context.Context, ref, _ string) (string, bool, error) {
	return "", slices.Contains(e.there, ref), e.labelErr
}

func (e *engine) Pull(ctx context.Context, ref string) error {
	e.asked = append(e.asked, "pull "+ref)
	return e.pull(ctx)
}

func (e *engine) Import(_ context.Context, ref string, rootfs io.Reader) error {
	e.asked = append(e.asked, "import "+ref)
	return e.importer(rootfs)
}

func (e *engine) Build(_ context.Context, recipe image.Build) error {
	e.asked = append(e.asked, "build "+recipe.Tag)
	e.built = &recipe
	return e.buildErr
}

var slim = image.Variant{Name: "slim", Tag: "vivarium/sandbox:slim"}

// withoutTools hides debootstrap, which must not run in a test.
func withoutTools(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
}

func TestMake(t *testing.T) {
	for name, test := range map[string]struct {
		there []string
		base  string
		asked []string
	}{
		"nothing there":         {nil, "debian:trixie-slim", []string{"pull debian:trixie-slim", "build vivarium/sandbox:slim"}},
		"the public base there": {[]string{"debian:trixie-slim"}, "debian:trixie-slim", []string{"build vivarium/sandbox:slim"}},
		"a base made here":      {[]string{"vivarium/base:trixie"}, "vivarium/base:trixie", []string{"build vivarium/sandbox:slim"}},
		"both": {
			[]string{"vivarium/base:trixie", "debian:trixie-slim"}, "debian:trixie-slim", []string{"build vivarium/sandbox:slim"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			withoutTools(t)
			e := &engine{there: test.there, pull: func(context.Context) error { return nil }}
			var said bytes.Buffer
			if err := image.Make(t.Context(), e, slim, &said); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.asked, e.asked); diff != "" {
				t.Errorf("what the engine was asked (-want +got):\n%s", diff)
			}
			want := &image.Build{
				Tag: "vivarium/sandbox:slim", Target: "slim",
				Args: map[string]string{"BASE": test.base}, Labels: map[string]string{"vivarium.recipe": image.Recipe()},
			}
			assertContext(t, e.built.Context)
			e.built.Context = nil
			if diff := cmp.Diff(want, e.built); diff != "" {
				t.Errorf("what was built (-want +got):\n%s", diff)
			}
			if !strings.Contains(said.String(), "Building vivarium/sandbox:slim") {
				t.Errorf("it said %q", said.String())
			}
		})
	}
}

// dockerfile returns the Dockerfile of all variants.
func dockerfile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// assertContext asserts that a build has the Dockerfile and what it copies.
func assertContext(t *testing.T, files fs.FS) {
	t.Helper()
	names := []string{"Dockerfile"}
	for _, line := range regexp.MustCompile(`(?m)^COPY (.+) \S+$`).FindAllStringSubmatch(dockerfile(t), -1) {
		names = append(names, strings.Fields(line[1])...)
	}
	if len(names) == 1 {
		t.Error("the recipe copies nothing")
	}
	for _, name := range names {
		if _, err := fs.Stat(files, name); err != nil {
			t.Error(err)
		}
	}
}

// Without a registry and without debootstrap, the error names both ways out.
func TestMakeWithoutBase(t *testing.T) {
	withoutTools(t)
	noRegistry := errors.New("registry: connection refused")
	e := &engine{pull: func(context.Context) error { return noRegistry }}
	var said bytes.Buffer
	err := image.Make(t.Context(), e, slim, &said)
	if !errors.Is(err, noRegistry) {
		t.Errorf("the error is %v", err)
	}
	for _, want := range []string{"no base image", "connection refused", "apt-get install debootstrap"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in the error: %v", want, err)
		}
	}
	if !strings.Contains(said.String(), "Fetching debian:trixie-slim.") || !strings.Contains(said.String(), "connection refused") {
		t.Errorf("it said %q", said.String())
	}
	if diff := cmp.Diff([]string{"pull debian:trixie-slim"}, e.asked); diff != "" {
		t.Errorf("what the engine was asked (-want +got):\n%s", diff)
	}
}

// fakeTools puts shell scripts in the place of debootstrap and tar.
func fakeTools(t *testing.T, debootstrap, tar string) {
	t.Helper()
	folder := t.TempDir()
	for name, script := range map[string]string{"debootstrap": debootstrap, "tar": tar} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", folder)
}

// Without a registry, the base is made from packages; that takes root.
func TestMakeBootstraps(t *testing.T) {
	broken := errors.New("the engine is broken")
	for name, test := range map[string]struct {
		debootstrap, tar string
		importErr        error
		want             string // in the error; empty: success
	}{
		"success":             {`echo "making $1 $2"`, `echo "packed $*"`, nil, ""},
		"debootstrap fails":   {`exit 3`, `exit 0`, nil, "debootstrap --variant=minbase: exit status 3"},
		"tar fails":           {`exit 0`, `exit 2`, nil, "exit status 2"},
		"the engine takes no": {`exit 0`, `echo packed`, broken, "the engine is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			fakeTools(t, test.debootstrap, test.tar)
			var packed []byte
			e := &engine{
				pull: func(context.Context) error { return errors.New("no registry") },
				importer: func(rootfs io.Reader) (err error) {
					packed, err = io.ReadAll(rootfs)
					return errors.Join(err, test.importErr)
				},
			}
			var said bytes.Buffer
			err := image.Make(t.Context(), e, slim, &said)
			want := test.want
			if os.Geteuid() != 0 {
				want = "debootstrap must run as root"
			}
			if want != "" {
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "no registry") || e.built != nil {
					t.Errorf("the error is %v; built was %v", err, e.built)
				}
				return
			}
			if err != nil || e.built == nil || e.built.Args["BASE"] != "vivarium/base:trixie" {
				t.Fatalf("built was %+v, %v", e.built, err)
			}
			if !strings.HasPrefix(string(packed), "packed -C /") || !strings.Contains(said.String(), "making --variant=minbase trixie\n") {
				t.Errorf("%q was imported; it said %q", packed, said.String())
			}
			root := strings.Fields(string(packed))[2]
			if _, err := os.Stat(filepath.Dir(root)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left", root)
			}
		})
	}
}

func TestMakeFails(t *testing.T) {
	broken := errors.New("broken")
	for name, e := range map[string]*engine{
		"at the look for a base": {labelErr: broken},
		"at the build":           {there: []string{"debian:trixie-slim"}, buildErr: broken},
	} {
		t.Run(name, func(t *testing.T) {
			withoutTools(t)
			if err := image.Make(t.Context(), e, slim, io.Discard); !errors.Is(err, broken) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// A caller who leaves during the pull does not start debootstrap.
func TestMakeCancelled(t *testing.T) {
	withoutTools(t)
	why := errors.New("the user pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(t.Context())
	e := &engine{pull: func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the pull may take for ever")
		}
		cancel(why)
		return ctx.Err()
	}}
	if err := image.Make(ctx, e, slim, io.Discard); !errors.Is(err, why) {
		t.Errorf("the error is %v", err)
	}
}

func TestByTag(t *testing.T) {
	for tag, want := range map[string]string{
		"vivarium/sandbox:latest": "data",
		"vivarium/sandbox":        "data",
		"vivarium/sandbox:slim":   "slim",
		"vivarium/sandbox:lean":   "lean",
		"vivarium/sandbox:other":  "",
		"vivarium/sandbox:":       "",
		"sandbox":                 "",
		"python:3":                "",
		"":                        "",
	} {
		if got, found := image.ByTag(tag); got.Name != want || found != (want != "") {
			t.Errorf("%q is %q, %v", tag, got.Name, found)
		}
	}
}

// Every variant is a stage of the recipe, and has a tag of its own.
func TestVariants(t *testing.T) {
	tags := make(map[string]bool)
	for _, v := range image.Variants() {
		if !regexp.MustCompile(`(?m)^FROM \S+ AS ` + v.Name + `$`).MatchString(dockerfile(t)) {
			t.Errorf("the recipe has no stage %s", v.Name)
		}
		if found, ok := image.ByTag(v.Tag); !ok || found != v || tags[v.Tag] {
			t.Errorf("%s is not found by its tag %s", v.Name, v.Tag)
		}
		if v.MB <= 0 || v.Content == "" {
			t.Errorf("%s has no size or no content", v.Name)
		}
		tags[v.Tag] = true
	}
	if len(tags) == 0 {
		t.Error("there are none")
	}
}

// Programs run as an unprivileged user, in every stage.
func TestDockerfileEndsUnprivileged(t *testing.T) {
	for i, stage := range strings.Split(dockerfile(t), "\nFROM ")[1:] {
		users := regexp.MustCompile(`(?m)^USER (\S+)$`).FindAllStringSubmatch(stage, -1)
		if len(users) == 0 || users[len(users)-1][1] != "65532:65532" {
			t.Errorf("stage %d ends as %v", i+1, users)
		}
	}
}

func TestRecipe(t *testing.T) {
	if got := image.Recipe(); !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(got) || got != image.Recipe() {
		t.Errorf("the recipe is %q", got)
	}
}
