package config_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
)

var update = flag.Bool("update", false, "write docs/settings.md anew")

// docs/settings.md matches the code.
func TestSettingsDocument(t *testing.T) {
	const path = "../docs/settings.md"
	want := "# Settings\n\nAll come from the environment; one that is empty counts as unset. A default that exceeds what another setting\n" +
		"allows gives way to it, and some defaults follow other settings. This table is generated from config/config.go (go tool task generate).\n\n" + config.Table()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not current: go tool task generate", path)
	}
}

// A value in a document behind a setting, "`NAME` (value)", is the default.
func TestDefaultsInTexts(t *testing.T) {
	defaults := make(map[string]string)
	for _, s := range config.Settings() {
		defaults[s.Name] = s.Default
	}
	paths, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	words, found := strings.NewReplacer(",", "", "an hour", "3600"), 0
	for _, path := range append(paths, "../README.md", "../ARCHITECTURE.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range regexp.MustCompile("`([A-Z_]+)`\\s\\((\\d[\\d,]*|an hour)\\)").FindAllStringSubmatch(string(text), -1) {
			found++
			if value := words.Replace(pair[2]); defaults[pair[1]] != value {
				t.Errorf("%s has %s as %s; it is %q", path, pair[1], pair[2], defaults[pair[1]])
			}
		}
	}
	if found < 4 {
		t.Errorf("%d are found: the form has changed", found)
	}
}

func load(t *testing.T, env map[string]string) (config.Config, error) {
	t.Helper()
	return config.Load(t.Context(), func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
}

func TestLoadDefaults(t *testing.T) {
	c, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "127.0.0.1" || c.Port != 8000 || c.MaxExecTimeoutMS != 60000 || c.CPULimit != 1 || c.Image != "vivarium/sandbox:latest" {
		t.Errorf("wrong defaults: %+v", c)
	}
}

func TestLoadValues(t *testing.T) {
	c, err := load(t, map[string]string{"PORT": "9001", "CPU_LIMIT": "0.5", "LOG_FORMAT": "json", "MEMORY_LIMIT_MB": "", "PRELOAD_MODULES": "numpy, xml.etree.ElementTree"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Port != 9001 || c.CPULimit != 0.5 || c.LogFormat != "json" || c.MemoryLimitMB != 1024 {
		t.Errorf("wrong values: %+v", c)
	}
}

// Settings accept the forms of values that Python accepts.
func TestPythonsValues(t *testing.T) {
	for value, want := range map[string]int{"1000": 1000, " 1000\n": 1000, "+1000": 1000, "1_000": 1000, "\t+1_0_0_0 ": 1000, "0010": 10} {
		c, err := load(t, map[string]string{"MAX_EXEC_TIMEOUT_MS": value, "PORT": value, "FILE_TTL_SEC": value})
		if err != nil || c.MaxExecTimeoutMS != want || c.Port != want || c.FileTTLSec != want {
			t.Errorf("%q: %v %+v", value, err, c)
		}
	}
	for _, value := range []string{"1__000", "_1000", "1000_", "1 000", "0x10", "1e3", "1000.0", "+-1", "--1", " ", "٣"} {
		if _, err := load(t, map[string]string{"MAX_EXEC_TIMEOUT_MS": value}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("MAX_EXEC_TIMEOUT_MS is %q: must be", value)) {
			t.Errorf("%q: %v", value, err)
		}
	}
	for value, want := range map[string]string{
		"DEBUG": "debug", "Info": "info", "WARNING": "warn", "warn": "warn", "Error": "error", "CRITICAL": "error", "fatal": "error", "NOTSET": "debug",
	} {
		if c, err := load(t, map[string]string{"LOG_LEVEL": value, "LOG_FORMAT": "JSON", "EXECUTOR_BACKEND": "Docker"}); err != nil || c.LogLevel != want || c.LogFormat != "json" || c.Backend != "docker" {
			t.Errorf("%q: %v %+v", value, err, c)
		}
	}
}

// An empty value is the default, for every setting.
func TestEmptyIsDefault(t *testing.T) {
	want, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	empty := make(map[string]string)
	for _, s := range config.Settings() {
		empty[s.Name] = ""
	}
	if got, err := load(t, empty); err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%v\n%+v\nis not\n%+v", err, got, want)
	}
}

// A relative folder is below the working directory.
func TestRelativeStorage(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := load(t, map[string]string{"FILE_STORAGE_DIR": "a/b"}); err != nil || c.FileStorageDir != filepath.Join(here, "a", "b") {
		t.Errorf("%q %v", c.FileStorageDir, err)
	}
}

// The error has all faults, each with its variable, its value and what is allowed.
func TestLoadReportsEveryFault(t *testing.T) {
	_, err := load(t, map[string]string{
		"PORT": "99999", "LOG_LEVEL": "loud", "CPU_LIMIT": "NaN", "MAX_OUTPUT_BYTES": "1e6", "POOL_SIZE": "30", "MAX_SANDBOXES": "20",
		"WORKSPACE_LIMIT_MB": "3000", "PRELOAD_MODULES": "numpy, os;print(1)", "ISOLATION": "vm", "MAX_BODY_MB": "100",
		"MCP_ENV_NAMES": "TOKEN, FOO-BAR",
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`PORT is "99999": must be a whole number from 0 to 65535`,
		`LOG_LEVEL is "loud": must be one of debug, info, warn, error`,
		`CPU_LIMIT is "NaN": must be a number from 0.01 to 1024`,
		`MAX_OUTPUT_BYTES is "1e6": must be a whole number from 1 to 1073741824`,
		`POOL_SIZE is 30: must be at most MAX_SANDBOXES, which is 20`,
		`WORKSPACE_LIMIT_MB is 3000: must be at most MEMORY_LIMIT_MB, which is 1024 unless it is set`,
		`PRELOAD_MODULES is "numpy, os;print(1)": must be auto, none, or names of modules separated by commas`,
		`MAX_BODY_MB is 100: must be at most MAX_IN_FLIGHT_MB / 10, which is 51`,
		`MCP_ENV_NAMES has "FOO-BAR": must be names of ASCII letters, digits and _, separated by commas, without VIVARIUM_ in front`,
		`ISOLATION is "vm": must be one of auto, run, container`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
}

// A model may be allowed to set what a request may set.
func TestEnvNames(t *testing.T) {
	for _, name := range []string{"A", "_b9", "9A", "A-B", "A=B", "É", strings.Repeat("N", 128), strings.Repeat("N", 129), "VIVARIUM_X", "vivarium_x", "VIVARIUM"} {
		c, err := load(t, map[string]string{"MCP_ENV_NAMES": "TOKEN ," + name})
		if fault := execution.VariableFault(name); (err != nil) != (fault != "") {
			t.Errorf("%q: the setting gives %v, a request %q", name, err, fault)
		}
		if err == nil && !slices.Equal(c.MCPEnvNames, []string{"TOKEN", name}) {
			t.Errorf("the names are %q", c.MCPEnvNames)
		}
	}
}

// A default never makes a setting wrong: the setting that bounds it lowers it.
func TestDefaultsGiveWay(t *testing.T) {
	c, err := load(t, map[string]string{"MEMORY_LIMIT_MB": "32", "MAX_SANDBOXES": "2", "FILE_STORE_MAX_MB": "50", "MAX_IN_FLIGHT_MB": "64"})
	if err != nil {
		t.Fatal(err)
	}
	if c.WorkspaceLimitMB != 32 || c.TmpLimitMB != 32 || c.PoolSize != 2 || c.MaxFileSizeMB != 50 || c.MaxBodyMB != 6 {
		t.Errorf("%+v", c)
	}
	_, err = load(t, map[string]string{"MEMORY_LIMIT_MB": "32", "TMP_LIMIT_MB": "64", "FILE_STORE_MAX_MB": "50", "MAX_FILE_SIZE_MB": "100"})
	want := "TMP_LIMIT_MB is 64: must be at most MEMORY_LIMIT_MB, which is 32\n" +
		"MAX_FILE_SIZE_MB is 100: must be at most FILE_STORE_MAX_MB, which is 50"
	if err == nil || err.Error() != want {
		t.Errorf("what is set: %v", err)
	}
}

// The local backend rejects settings that need an engine.
func TestLocalTakesNoEngineSettings(t *testing.T) {
	for name, value := range map[string]string{
		"PYTHON_EXECUTOR_DOCKER_IMAGE": "python:3", "PYTHON_EXECUTOR_DOCKER_NETWORK": "bridge", "PYTHON_EXECUTOR_DOCKER_RUNTIME": "runsc",
	} {
		want := fmt.Sprintf("%s is %q: must ", name, value)
		if _, err := load(t, map[string]string{"EXECUTOR_BACKEND": "local", name: value}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "EXECUTOR_BACKEND=local") {
			t.Errorf("%q is not in %v", want, err)
		}
		if c, err := load(t, map[string]string{name: value}); err != nil || !c.NeedsEngine() {
			t.Errorf("%s with auto needs no engine (%v)", name, err)
		}
	}
	if c, err := load(t, map[string]string{"EXECUTOR_BACKEND": "local", "LOCAL_ROOTFS": "/srv/root"}); err != nil || c.NeedsEngine() {
		t.Error(err)
	}
}

func TestEngineSettings(t *testing.T) {
	for name, test := range map[string]struct{ good, bad []string }{
		"DOCKER_HOST": {
			[]string{"unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375", "https://engine.example.com:2376"},
			[]string{"foo", "/var/run/docker.sock", "unix://", "tcp://", "tcp://a b:1", "127.0.0.1:2375", "ssh://me@host", "tcp://me:SECRET@host:1"},
		},
		"PYTHON_EXECUTOR_DOCKER_IMAGE": {
			[]string{"python", "vivarium/sandbox:slim", "localhost:5000/a/b:1", "a@sha256:" + strings.Repeat("0a", 32), "sha256:" + strings.Repeat("0a", 32), "0123456789ab"},
			[]string{"Foo Bar", "Foo", "a:b:c", "a@sha256:12", "https://registry/a", "-a"},
		},
	} {
		for _, value := range test.good {
			if _, err := load(t, map[string]string{name: value}); err != nil {
				t.Error(err)
			}
		}
		for _, value := range test.bad {
			_, err := load(t, map[string]string{name: value})
			if err == nil || !strings.HasPrefix(err.Error(), name+" is \"") || !strings.Contains(err.Error(), `": must be `) || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
}

func TestStorageURL(t *testing.T) {
	for _, url := range []string{
		"file:///var/lib/vivarium", "s3://bucket", "s3://my.bucket-1?region=eu-central-1&prefix=files/&endpoint=http://127.0.0.1:9000", "gs://bucket?prefix=x/",
	} {
		if c, err := load(t, map[string]string{"FILE_STORAGE_URL": url}); err != nil || c.FileStorageURL != url {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, url := range []string{
		"file://folder", "file:///", "/var/lib", "ftp://host/x", "azblob://bucket", "s3:///", "s3://", "s3://bucket/folder", "s3://key:SECRET@bucket",
		"s3://key:SECRET/with@bucket", "s3:// bucket:%zz", "file:///x?prefix=y", "gs://bucket#x",
	} {
		_, err := load(t, map[string]string{"FILE_STORAGE_URL": url})
		if err == nil || !strings.Contains(err.Error(), "FILE_STORAGE_URL is ") || !strings.Contains(err.Error(), ": must be file:///FOLDER, s3://BUCKET or gs://BUCKET") {
			t.Errorf("%q: %v", url, err)
		} else if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("it tells secrets: %v", err)
		}
	}
	_, err := load(t, map[string]string{"FILE_STORAGE_URL": "s3://bucket", "FILE_STORAGE_DIR": "/files"})
	if want := `FILE_STORAGE_URL is "s3://bucket" and FILE_STORAGE_DIR is "/files": must not both be set`; err == nil || err.Error() != want {
		t.Errorf("both: %v", err)
	}
}

func TestAllowedNames(t *testing.T) {
	c, err := load(t, map[string]string{
		"ALLOWED_HOSTS":   "sandbox.example.com, Other.Example.com,",
		"ALLOWED_ORIGINS": "https://App.example.com,http://[::1]:6274 , chrome-extension://abcdef",
	})
	if err != nil || strings.Join(c.AllowedHosts, " ") != "sandbox.example.com other.example.com" ||
		strings.Join(c.AllowedOrigins, " ") != "https://app.example.com http://[::1]:6274 chrome-extension://abcdef" {
		t.Errorf("%q %q %v", c.AllowedHosts, c.AllowedOrigins, err)
	}
	for _, host := range []string{"https://x.example.com", "x.example.com:8000", "*.example.com", "*", "x/y", "a b.com"} {
		_, err := load(t, map[string]string{"ALLOWED_HOSTS": "example.com," + host})
		if want := `ALLOWED_HOSTS has "` + host + `": must be host names`; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", host, err)
		}
	}
	for _, origin := range []string{"null", "*", "https://*", "example.com", "https://example.com/", "https://example.com/x", "https://a@example.com", "https://example.com:x", "https://example.com:443", "http://example.com:80", "http://[::1]:80"} {
		_, err := load(t, map[string]string{"ALLOWED_ORIGINS": origin})
		if want := `ALLOWED_ORIGINS has "` + origin + `": must be origins`; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

func TestKeys(t *testing.T) {
	keys := map[string]string{"API_KEYS": "0123456789abcdef, another-key!with~visible^characters,"}
	c, err := load(t, keys)
	if err != nil || len(c.APIKeys.Hashes) != 2 || c.APIKeys.Hashes[0] != sha256.Sum256([]byte("0123456789abcdef")) {
		t.Errorf("%v %v", c.APIKeys, err)
	}
	if text := fmt.Sprintf("%+v", c); strings.Contains(text, "0123456789abcdef") || strings.Contains(text, "visible") {
		t.Errorf("the settings have a key: %s", text)
	}
	for _, secret := range []string{"tooshort", "0123456789 abcdefg", "0123456789abcdéf", "0123456789abcdef\x00"} {
		_, err := load(t, map[string]string{"API_KEYS": "0123456789abcdef," + secret})
		want := "API_KEYS is not valid: its key 2 of 2 is too short or has other characters: it must be keys separated by commas, each of 16 or more visible ASCII characters"
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", secret, err)
		}
	}
}

// An API_KEYS that is set but holds no key is an error: it must not let everyone in.
func TestKeysWithoutAKey(t *testing.T) {
	for _, value := range []string{",", " ", " , ", ",,"} {
		_, err := load(t, map[string]string{"API_KEYS": value})
		want := "API_KEYS is not valid: it is set, but holds no key: it must be keys separated by commas"
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", value, err)
		}
	}
	if _, err := load(t, map[string]string{"API_KEYS": ""}); err != nil {
		t.Errorf("empty: %v", err)
	}
}

func TestOAuthSettings(t *testing.T) {
	good := map[string]string{
		"OAUTH_ISSUER": "https://issuer.example.com/realms/x", "OAUTH_AUDIENCE": "https://Sandbox.example.com, other",
		"OAUTH_JWKS_URL": "http://127.0.0.1:9000/keys", "PUBLIC_URL": "https://sandbox.example.com:8443",
	}
	c, err := load(t, good)
	if err != nil || strings.Join(c.OAuthAudience, " ") != "https://Sandbox.example.com other" {
		t.Errorf("%q %v", c.OAuthAudience, err)
	}
	for name, test := range map[string]struct{ variable, value, want string }{
		"no audience":  {"OAUTH_AUDIENCE", "", "OAUTH_AUDIENCE is empty: must be set where OAUTH_ISSUER is"},
		"no issuer":    {"OAUTH_ISSUER", "", "OAUTH_ISSUER is empty: must be set where OAUTH_AUDIENCE"},
		"no URL":       {"OAUTH_ISSUER", "issuer.example.com", `OAUTH_ISSUER is "issuer.example.com": must be a URL, https:// or http://`},
		"a secret":     {"OAUTH_ISSUER", "https://me:SECRET@issuer", `OAUTH_ISSUER is "https://...@issuer": must be a URL`},
		"another kind": {"OAUTH_JWKS_URL", "file:///keys", `OAUTH_JWKS_URL is "file:///keys": must be a URL`},
		"with a path":  {"PUBLIC_URL", "https://example.com/vivarium", `PUBLIC_URL is "https://example.com/vivarium": must be a URL in lower case`},
		"no scheme":    {"PUBLIC_URL", "example.com", `PUBLIC_URL is "example.com": must be`},
	} {
		bad := maps.Clone(good)
		bad[test.variable] = test.value
		if _, err := load(t, bad); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every setting is documented, and its default is allowed.
func TestSettingsAreDocumented(t *testing.T) {
	for _, s := range config.Settings() {
		if s.Name == "" || s.Help == "" || s.Allowed == "" {
			t.Errorf("incomplete: %+v", s)
		}
		if _, err := load(t, map[string]string{s.Name: s.Default}); err != nil {
			t.Errorf("%s: its default is refused: %v", s.Name, err)
		}
	}
}
