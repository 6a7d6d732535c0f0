// Package config holds all settings. They come from the environment, are
// checked as a whole, and never change afterwards: main copies what each
// package needs into that package's options.
package config

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sethvargo/go-envconfig"
)

// Config is the settings. Each field names its variable, its default and what
// is allowed: min and max for numbers, and in atmost a setting of which it must not
// exceed the part that part divides it into, or the whole; oneof for words; and for
// other text a description.
type Config struct {
	Host      string `env:"HOST, default=127.0.0.1" help:"address to listen on; 0.0.0.0 in the container image"`
	Port      int    `env:"PORT, default=8000" min:"0" max:"65535" help:"port to listen on; 0 takes a free one"`
	LogLevel  string `env:"LOG_LEVEL, default=info" oneof:"debug info warn error" help:"what is logged, to stderr"`
	LogFormat string `env:"LOG_FORMAT, default=plain" oneof:"plain json" help:"json writes one object a line"`

	AllowedHosts   Names  `env:"ALLOWED_HOSTS" allowed:"names of hosts with commas between, without scheme and port" help:"names by which clients may call the server, such as sandbox.example.com; addresses, names without a dot and those that nobody can own in the public DNS (.localhost, .local, .internal, .svc, .cluster.local, .home.arpa) are allowed in any case"`
	AllowedOrigins Names  `env:"ALLOWED_ORIGINS" allowed:"origins with commas between, each as a browser sends it: scheme://host or, unless that is the scheme's own port, scheme://host:port" help:"origins whose web pages may use the server besides its own, such as https://app.example.com"`
	PublicURL      string `env:"PUBLIC_URL" allowed:"a URL in lower case, https://host or http://host, with a port unless that is the scheme's own, and nothing behind it" help:"where clients reach the server, such as https://sandbox.example.com behind a proxy that ends TLS; its host and its own pages are allowed"`

	APIKeys       Keys   `env:"API_KEYS" allowed:"keys with commas between, each of 16 or more visible ASCII characters" help:"keys, one of which each request must have, as Authorization: Bearer KEY; what is made with a key is seen with that key alone. Empty lets everybody in, unless OAUTH_ISSUER is set"`
	OAuthIssuer   string `env:"OAUTH_ISSUER" allowed:"a URL, https:// or http://" help:"OAuth issuer whose access tokens (JWT) let in, as keys do"`
	OAuthAudience List   `env:"OAUTH_AUDIENCE" allowed:"text, with commas between" help:"audiences, one of which a token must have; needed with OAUTH_ISSUER"`
	OAuthJWKSURL  string `env:"OAUTH_JWKS_URL" allowed:"a URL, https:// or http://" help:"where the issuer's keys are; found with OpenID Connect Discovery when empty"`

	Backend     string `env:"EXECUTOR_BACKEND, default=auto" oneof:"auto docker local" help:"where sandboxes come from. docker: containers of a Docker Engine; local: this server makes them itself, of Linux namespaces and the Python that is installed here; auto: docker where an engine answers and the sandbox image is there, or where another image, a network or a runtime is set, else local"`
	LocalPython string `env:"LOCAL_PYTHON" allowed:"a path, or a name that is looked up in PATH" help:"with local, the interpreter: a virtual environment's, such as /path/to/venv/bin/python, brings its packages; python3 when empty. It must not lie below /tmp, of which each sandbox has one of its own. One outside of /usr is started by the server too, to ask what it is"`
	LocalRootfs string `env:"LOCAL_ROOTFS" allowed:"an absolute path" help:"with local, a folder with a root file system to use in place of this machine's own /usr, such as an unpacked image"`

	Image   string `env:"PYTHON_EXECUTOR_DOCKER_IMAGE, default=vivarium/sandbox:latest" allowed:"NAME, NAME:TAG or NAME@DIGEST, NAME in lower case" help:"sandbox image, by tag or digest; any with Python 3.9 or newer at python3"`
	Network string `env:"PYTHON_EXECUTOR_DOCKER_NETWORK, default=none" help:"network that programs reach; none is the safe choice"`
	Runtime string `env:"PYTHON_EXECUTOR_DOCKER_RUNTIME" help:"OCI runtime, such as runsc; empty is the engine's default"`

	Isolation      string `env:"ISOLATION, default=auto" oneof:"auto run container" help:"run: a container serves many runs, each in a fresh inner sandbox; container: one run each; auto: run where it can be had, else container"`
	PreloadModules string `env:"PRELOAD_MODULES, default=auto" help:"Python modules to import ahead where a container serves many runs, with commas between; auto: those that the image names; none"`

	MaxExecTimeoutMS int     `env:"MAX_EXEC_TIMEOUT_MS, default=60000" min:"1" max:"86400000" help:"longest timeout_ms that a request may ask for"`
	CPUTimeLimitSec  int     `env:"CPU_TIME_LIMIT_SEC, default=5" min:"1" max:"86400" help:"CPU time of each process of a run"`
	CPULimit         float64 `env:"CPU_LIMIT, default=1" min:"0.01" max:"1024" help:"cores that a sandbox may use"`
	MemoryLimitMB    int     `env:"MEMORY_LIMIT_MB, default=256" min:"32" max:"1048576" help:"memory of a sandbox, its files included"`
	PidsLimit        int     `env:"PIDS_LIMIT, default=64" min:"4" max:"32768" help:"processes and threads of a sandbox"`
	PtyLimit         int     `env:"PTY_LIMIT, default=0" min:"0" max:"256" help:"pseudo-terminals that the programs of a sandbox may have open, for pexpect and the like. The kernel works for them outside of CPU_LIMIT, and a run can see when earlier ones of the same key used them; 0 gives none"`
	WorkspaceLimitMB int     `env:"WORKSPACE_LIMIT_MB, default=64" min:"1" max:"1048576" atmost:"MEMORY_LIMIT_MB" help:"size of the workspace; what lies there counts as memory"`
	TmpLimitMB       int     `env:"TMP_LIMIT_MB, default=64" min:"1" max:"1048576" atmost:"MEMORY_LIMIT_MB" help:"size of /tmp; what lies there counts as memory"`
	MaxOutputBytes   int     `env:"MAX_OUTPUT_BYTES, default=1000000" min:"1" max:"1073741824" help:"kept of stdout and of stderr each"`
	MaxFileSizeMB    int     `env:"MAX_FILE_SIZE_MB, default=100" min:"1" max:"102400" atmost:"FILE_STORE_MAX_MB" help:"size of one file"`
	MaxResultFiles   int     `env:"MAX_RESULT_FILES, default=100" min:"0" max:"10000" help:"files that a run returns"`
	MaxResultMB      int     `env:"MAX_RESULT_MB, default=20" min:"1" max:"1024" help:"size of all files that a run returns"`

	FileStorageDir string `env:"FILE_STORAGE_DIR" help:"folder for uploaded files; a folder of this user in the system's temporary one when empty"`
	FileStorageURL string `env:"FILE_STORAGE_URL" help:"where uploaded files are kept, in place of FILE_STORAGE_DIR: file:///FOLDER, s3://BUCKET or, in the server's image or another binary built with -tags gs, gs://BUCKET; the latter two with options such as ?region=, endpoint=, prefix= (gocloud.dev/blob has them all). Credentials come from where each cloud's own tools look: AWS_ACCESS_KEY_ID and the like or ~/.aws, GOOGLE_APPLICATION_CREDENTIALS; or from the machine's role"`
	FileTTLSec     int    `env:"FILE_TTL_SEC, default=3600" min:"1" max:"31536000" help:"age at which a stored file is deleted"`
	FileStoreMaxMB int    `env:"FILE_STORE_MAX_MB, default=4096" min:"1" max:"1073741824" help:"size of all stored files"`

	PoolSize        int `env:"POOL_SIZE, default=4" min:"0" max:"1000" atmost:"MAX_SANDBOXES" help:"idle sandboxes to keep warm"`
	MaxSandboxes    int `env:"MAX_SANDBOXES, default=16" min:"1" max:"10000" help:"all sandboxes there may be: idle, starting, running and ending"`
	PoolStarts      int `env:"POOL_STARTS, default=4" min:"1" max:"100" help:"sandboxes that start at the same time"`
	PoolIdleSec     int `env:"POOL_IDLE_SEC, default=600" min:"0" max:"31536000" help:"time without a request after which no sandbox is kept warm; 0 is never"`
	SandboxMaxAge   int `env:"SANDBOX_MAX_AGE_SEC, default=3600" min:"10" max:"604800" help:"age at which a sandbox is replaced"`
	SandboxMaxRuns  int `env:"SANDBOX_MAX_RUNS, default=1000" min:"1" max:"1000000" help:"runs after which a sandbox is replaced"`
	QueueSize       int `env:"QUEUE_SIZE, default=100" min:"0" max:"100000" help:"requests that may wait for a sandbox; one more gets 429"`
	MaxSessions     int `env:"MAX_SESSIONS, default=16" min:"1" max:"10000" help:"sessions there may be on the engine; each is a sandbox beside those of MAX_SANDBOXES"`
	MaxBodyMB       int `env:"MAX_BODY_MB, default=32" min:"1" max:"1024" atmost:"MAX_IN_FLIGHT_MB" part:"10" help:"size of a request's body"`
	MaxInFlightMB   int `env:"MAX_IN_FLIGHT_MB, default=512" min:"64" max:"1048576" help:"memory for all requests and connections at once: bodies, what is decoded of them, output and answers; one key's requests get at most two fifths of it. A request beyond it gets 429 or 503. The server's resident memory stays below this and 64 MB"`
	MCPSessionTTL   int `env:"MCP_SESSION_TTL_SEC, default=3600" min:"1" max:"86400" help:"life of a session that a model begins"`
	MCPOutputBytes  int `env:"MCP_OUTPUT_BYTES, default=30000" min:"1000" max:"10000000" help:"output of a call that a model is shown; what is beyond it is cut out of the middle and saved as a file"`
	ShutdownTimeout int `env:"SHUTDOWN_TIMEOUT_SEC, default=30" min:"0" max:"3600" help:"time that running programs get to finish at shutdown"`

	DockerHost      string `env:"DOCKER_HOST" allowed:"unix:///SOCKET, tcp://HOST:PORT, http://HOST:PORT or https://HOST:PORT" help:"the engine, as for the Docker CLI"`
	DockerContext   string `env:"DOCKER_CONTEXT" help:"a context of the Docker CLI; DOCKER_HOST comes before it"`
	DockerTLSVerify string `env:"DOCKER_TLS_VERIFY" help:"as for the Docker CLI"`
	DockerCertPath  string `env:"DOCKER_CERT_PATH" help:"as for the Docker CLI"`
	DockerConfig    string `env:"DOCKER_CONFIG" help:"the Docker CLI's folder; ~/.docker when empty"`
}

// Setting describes one setting.
type Setting struct {
	Name, Default, Allowed, Help string

	field reflect.StructField
}

// Settings describes all settings, in the order of [Config].
func Settings() []Setting {
	var settings []Setting
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		name, rest, _ := strings.Cut(field.Tag.Get("env"), ", ")
		s := Setting{Name: name, Default: strings.TrimPrefix(rest, "default="), Help: field.Tag.Get("help"), field: field}
		s.Allowed = s.allowed()
		settings = append(settings, s)
	}
	return settings
}

func (s Setting) allowed() string {
	if allowed := s.field.Tag.Get("allowed"); allowed != "" {
		return allowed
	}
	words, low, high := s.field.Tag.Get("oneof"), s.field.Tag.Get("min"), s.field.Tag.Get("max")
	switch {
	case words != "":
		return "one of " + strings.Join(strings.Fields(words), ", ")
	case s.field.Type.Kind() == reflect.Int:
		return fmt.Sprintf("a whole number from %s to %s", low, high) + s.bounded()
	case s.field.Type.Kind() == reflect.Float64:
		return fmt.Sprintf("a number from %s to %s", low, high)
	}
	return "text"
}

func (s Setting) bounded() string {
	switch bound, part := s.bound(); {
	case bound == "":
		return ""
	case part > 1:
		return fmt.Sprintf(", at most %s / %d", bound, part)
	default:
		return ", at most " + bound
	}
}

// bound names the setting of which this one must not exceed a part, if there is one:
// the whole is one part.
func (s Setting) bound() (name string, part int64) {
	part, err := strconv.ParseInt(s.field.Tag.Get("part"), 10, 64)
	if err != nil {
		part = 1
	}
	return s.field.Tag.Get("atmost"), part
}

// accepts says whether a value is allowed.
func (s Setting) accepts(value string) bool {
	words := s.field.Tag.Get("oneof")
	switch s.field.Type.Kind() {
	case reflect.Int:
		n, err := strconv.ParseInt(value, 10, 64)
		return err == nil && s.inRange(float64(n))
	case reflect.Float64:
		x, err := strconv.ParseFloat(value, 64)
		return err == nil && s.inRange(x)
	default:
		return words == "" || slices.Contains(strings.Fields(words), value)
	}
}

func (s Setting) inRange(x float64) bool {
	low, lowErr := strconv.ParseFloat(s.field.Tag.Get("min"), 64)
	high, highErr := strconv.ParseFloat(s.field.Tag.Get("max"), 64)
	return lowErr == nil && highErr == nil && low <= x && x <= high
}

// Load reads the settings. Its error names every variable at fault, with its
// value and what is allowed. A variable that is set to nothing counts as unset.
func Load(ctx context.Context, lookup func(name string) (string, bool)) (Config, error) {
	var faults []error
	settings := byName()
	// The library stops at the first fault, so values are checked before it
	// parses them: one that is at fault gives way to the default.
	check := envconfig.MutatorFunc(func(_ context.Context, name, _, _, value string) (string, bool, error) {
		s := settings[name]
		if value == "" {
			return s.Default, false, nil
		}
		if !s.accepts(value) {
			faults = append(faults, fmt.Errorf("%s is %q: must be %s", name, value, s.Allowed))
			return s.Default, false, nil
		}
		return value, false, nil
	})
	var c Config
	err := envconfig.ProcessWith(ctx, &envconfig.Config{
		Target: &c, Lookuper: lookuper(lookup), Mutators: []envconfig.Mutator{check},
	})
	if err != nil {
		return Config{}, fmt.Errorf("settings: %w", err)
	}
	faults = append(faults, c.keepBounds(func(name string) bool {
		value, _ := lookup(name)
		return value != ""
	})...)
	faults = append(faults, c.contradictions()...)
	return c, errors.Join(faults...)
}

func byName() map[string]Setting {
	settings := make(map[string]Setting)
	for _, s := range Settings() {
		settings[s.Name] = s
	}
	return settings
}

// keepBounds finds settings that exceed the one that bounds them. Where they
// are not set, their defaults give way instead: nobody need set two to lower
// one.
func (c *Config) keepBounds(set func(name string) bool) []error {
	var faults []error
	fields, settings := reflect.ValueOf(c).Elem(), byName()
	for _, s := range Settings() {
		name, part := s.bound()
		if name == "" {
			continue
		}
		value, bound := fields.FieldByIndex(s.field.Index), fields.FieldByIndex(settings[name].field.Index).Int()
		switch {
		case value.Int() <= bound/part:
		case !set(s.Name):
			value.SetInt(bound / part)
		case part > 1:
			faults = append(faults, fmt.Errorf("%s is %d: must be at most %s / %d, which is %d", s.Name, value.Int(), name, part, bound/part))
		default:
			faults = append(faults, fmt.Errorf("%s is %d: must be at most %s, which is %d", s.Name, value.Int(), name, bound))
		}
	}
	return faults
}

// contradictions finds settings that are allowed alone but not together, and
// what a tag cannot say.
func (c Config) contradictions() []error {
	var faults []error
	if c.FileStorageDir != "" && !filepath.IsAbs(c.FileStorageDir) {
		faults = append(faults, fmt.Errorf("FILE_STORAGE_DIR is %q: must be an absolute path", c.FileStorageDir))
	}
	faults = append(faults, c.engineFaults()...)
	faults = append(faults, c.localFaults()...)
	faults = append(faults, c.storageFaults()...)
	faults = append(faults, c.accessFaults()...)
	for name := range strings.SplitSeq(c.PreloadModules, ",") {
		if !moduleName().MatchString(strings.TrimSpace(name)) {
			faults = append(faults, fmt.Errorf("PRELOAD_MODULES is %q: must be auto, none, or names of modules with commas between", c.PreloadModules))
			break
		}
	}
	return faults
}

// localFaults finds what goes without an engine alone, or not without one.
func (c Config) localFaults() []error {
	var faults []error
	if c.LocalRootfs != "" && !filepath.IsAbs(c.LocalRootfs) {
		faults = append(faults, fmt.Errorf("LOCAL_ROOTFS is %q: must be an absolute path", c.LocalRootfs))
	}
	if c.Backend == "local" && c.Network != "none" {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_NETWORK is %q: must be none with EXECUTOR_BACKEND=local, which has no network", c.Network))
	}
	if c.Backend == "local" && c.Image != byName()["PYTHON_EXECUTOR_DOCKER_IMAGE"].Default {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_IMAGE is %q: must not be set with EXECUTOR_BACKEND=local, which has no engine; LOCAL_PYTHON or LOCAL_ROOTFS names what programs run with", c.Image))
	}
	if c.Backend == "local" && c.Runtime != "" {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_RUNTIME is %q: must be empty with EXECUTOR_BACKEND=local, which has no engine", c.Runtime))
	}
	return faults
}

// NeedsEngine says whether the settings ask for what a container engine alone has:
// another image, network or runtime than the default.
func (c Config) NeedsEngine() bool {
	settings := byName()
	return c.Image != settings["PYTHON_EXECUTOR_DOCKER_IMAGE"].Default ||
		c.Network != settings["PYTHON_EXECUTOR_DOCKER_NETWORK"].Default ||
		c.Runtime != settings["PYTHON_EXECUTOR_DOCKER_RUNTIME"].Default
}

// storageFaults finds what is wrong with FILE_STORAGE_URL, whose options are
// checked when it is opened.
func (c Config) storageFaults() []error {
	var faults []error
	if c.FileStorageURL == "" {
		return nil
	}
	if !storageURL().MatchString(c.FileStorageURL) {
		faults = append(faults, fmt.Errorf("FILE_STORAGE_URL is %q: must be file:///FOLDER, s3://BUCKET or gs://BUCKET, the latter two with options behind a ?",
			redact(c.FileStorageURL)))
	}
	if c.FileStorageDir != "" {
		faults = append(faults, fmt.Errorf("FILE_STORAGE_URL is %q and FILE_STORAGE_DIR is %q: must not both be set",
			redact(c.FileStorageURL), c.FileStorageDir))
	}
	return faults
}

func storageURL() *regexp.Regexp {
	return regexp.MustCompile(`^(file:///[^?#]+|(s3|gs)://[A-Za-z0-9][\w.-]*/?(\?[^#]*)?)$`)
}

// redact hides the credentials that somebody may have put into a URL, whether
// or not it is one otherwise.
func redact(address string) string {
	return regexp.MustCompile(`//.*@`).ReplaceAllString(address, "//...@")
}

// moduleName is what a Python module may be called.
func moduleName() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$`) }

// DockerConfigDir gives the Docker CLI's folder, "" where there is no home.
func (c Config) DockerConfigDir(home string) string {
	switch {
	case c.DockerConfig != "":
		return c.DockerConfig
	case home == "":
		return ""
	}
	return filepath.Join(home, ".docker")
}

type lookuper func(name string) (string, bool)

// Lookup implements [envconfig.Lookuper].
func (l lookuper) Lookup(name string) (string, bool) { return l(name) }

// Table documents all settings as a Markdown table.
func Table() string {
	var b strings.Builder
	b.WriteString("| name | default | allowed | meaning |\n|---|---|---|---|\n")
	for _, s := range Settings() {
		value := ""
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, value, s.Allowed, s.Help)
	}
	return b.String()
}
