// Package config holds all settings. They come from the environment, are
// checked as a whole, and never change afterwards: main copies what each
// package needs into that package's options.
package config

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sethvargo/go-envconfig"
)

//go:embed settings.txt
var settingsText string

// Config is the settings. Each field's tag has its variable and its default, and
// what is allowed: min and max for numbers, oneof for words, alias for other names of
// these. atmost names a setting
// that this one must not exceed; with part, it must not exceed the value divided by
// that. follows describes the value of a setting that depends on others if it is not
// set (see derived.go). settings.txt describes each setting, and what other text is allowed.
type Config struct {
	Host      string `env:"HOST, default=127.0.0.1"`
	Port      int    `env:"PORT, default=8000" min:"0" max:"65535"`
	LogLevel  string `env:"LOG_LEVEL, default=info" oneof:"debug info warn error" alias:"warning=warn critical=error fatal=error notset=debug"`
	LogFormat string `env:"LOG_FORMAT, default=plain" oneof:"plain json"`

	AllowedHosts   Names  `env:"ALLOWED_HOSTS"`
	AllowedOrigins Names  `env:"ALLOWED_ORIGINS"`
	PublicURL      string `env:"PUBLIC_URL"`

	APIKeys       Keys   `env:"API_KEYS"`
	OAuthIssuer   string `env:"OAUTH_ISSUER"`
	OAuthAudience List   `env:"OAUTH_AUDIENCE"`
	OAuthJWKSURL  string `env:"OAUTH_JWKS_URL"`

	Backend     string `env:"EXECUTOR_BACKEND, default=auto" oneof:"auto docker local kubernetes"`
	LocalPython string `env:"LOCAL_PYTHON"`
	LocalRootfs string `env:"LOCAL_ROOTFS"`

	Kubeconfig               string `env:"KUBECONFIG"`
	KubernetesContext        string `env:"KUBERNETES_CONTEXT"`
	KubernetesNamespace      string `env:"KUBERNETES_EXECUTOR_NAMESPACE"`
	KubernetesProvider       string `env:"KUBERNETES_PROVIDER, default=deployment" oneof:"deployment agent-sandbox"`
	KubernetesPool           string `env:"KUBERNETES_POOL, default=vivarium-sandboxes"`
	KubernetesImage          string `env:"KUBERNETES_EXECUTOR_IMAGE"`
	KubernetesLinkDir        string `env:"KUBERNETES_LINK_DIR, default=/etc/vivarium/link"`
	KubernetesLinkPort       int    `env:"KUBERNETES_LINK_PORT, default=7443" min:"1" max:"65535"`
	PeerPort                 int    `env:"PEER_PORT, default=8001" min:"0" max:"65535"`
	PodIP                    string `env:"POD_IP"`
	KubernetesServiceAccount string `env:"KUBERNETES_EXECUTOR_SERVICE_ACCOUNT"`
	KubernetesLockdown       string `env:"KUBERNETES_EXECUTOR_NET_ADMIN_LOCKDOWN"`

	Image   string  `env:"PYTHON_EXECUTOR_DOCKER_IMAGE, default=vivarium/sandbox:latest"`
	Bin     string  `env:"PYTHON_EXECUTOR_DOCKER_BIN"`
	RunArgs RunArgs `env:"PYTHON_EXECUTOR_DOCKER_RUN_ARGS"`
	Network string  `env:"PYTHON_EXECUTOR_DOCKER_NETWORK, default=none"`
	Runtime string  `env:"PYTHON_EXECUTOR_DOCKER_RUNTIME"`

	Isolation      string `env:"ISOLATION, default=auto" oneof:"auto run container"`
	PreloadModules string `env:"PRELOAD_MODULES, default=auto"`

	MaxExecTimeoutMS int     `env:"MAX_EXEC_TIMEOUT_MS, default=60000" min:"1" max:"86400000"`
	CPUTimeLimitSec  int     `env:"CPU_TIME_LIMIT_SEC" min:"1" max:"86400" follows:"what fits in timeout_ms"`
	CPULimit         float64 `env:"CPU_LIMIT, default=1" min:"0.01" max:"1024"`
	MemoryLimitMB    int     `env:"MEMORY_LIMIT_MB" min:"32" max:"1048576" follows:"1024, or a quarter of the machine's memory if that is less"`
	PidsLimit        int     `env:"PIDS_LIMIT, default=64" min:"4" max:"32768"`
	PtyLimit         int     `env:"PTY_LIMIT, default=0" min:"0" max:"256"`
	WorkspaceLimitMB int     `env:"WORKSPACE_LIMIT_MB" min:"1" max:"1048576" atmost:"MEMORY_LIMIT_MB" follows:"half of MEMORY_LIMIT_MB, or MAX_FILE_SIZE_MB if that is more"`
	TmpLimitMB       int     `env:"TMP_LIMIT_MB" min:"1" max:"1048576" atmost:"MEMORY_LIMIT_MB" follows:"a quarter of MEMORY_LIMIT_MB, or 64 if that is more"`
	MaxOutputBytes   int     `env:"MAX_OUTPUT_BYTES, default=1000000" min:"1" max:"1073741824"`
	MaxFileSizeMB    int     `env:"MAX_FILE_SIZE_MB, default=100" min:"1" max:"102400" atmost:"FILE_STORE_MAX_MB"`
	MaxResultFiles   int     `env:"MAX_RESULT_FILES, default=100" min:"0" max:"10000"`
	MaxResultMB      int     `env:"MAX_RESULT_MB" min:"1" max:"1048576" follows:"WORKSPACE_LIMIT_MB, or MAX_FILE_SIZE_MB if that is more"`

	FileStorageDir string `env:"FILE_STORAGE_DIR"`
	FileStorageURL string `env:"FILE_STORAGE_URL"`
	FileTTLSec     int    `env:"FILE_TTL_SEC, default=3600" min:"1" max:"31536000"`
	FileStoreMaxMB int    `env:"FILE_STORE_MAX_MB, default=4096" min:"1" max:"1073741824"`

	PoolSize        int  `env:"POOL_SIZE" min:"0" max:"1000" atmost:"MAX_SANDBOXES" follows:"one more than the machine's cores, at most 16"`
	MaxSandboxes    int  `env:"MAX_SANDBOXES" min:"1" max:"10000" follows:"4 for each of the machine's cores, at least 16"`
	PoolStarts      int  `env:"POOL_STARTS, default=4" min:"1" max:"100"`
	PoolIdleSec     int  `env:"POOL_IDLE_SEC, default=600" min:"0" max:"31536000"`
	SandboxMaxAge   int  `env:"SANDBOX_MAX_AGE_SEC, default=3600" min:"10" max:"604800"`
	SandboxMaxRuns  int  `env:"SANDBOX_MAX_RUNS, default=1000" min:"1" max:"1000000"`
	QueueSize       int  `env:"QUEUE_SIZE, default=100" min:"0" max:"100000"`
	MaxSessions     int  `env:"MAX_SESSIONS, default=16" min:"1" max:"1000000"`
	SessionMaxAge   int  `env:"SESSION_MAX_AGE_SEC, default=86400" min:"1" max:"31536000"`
	SessionLinkIdle int  `env:"SESSION_LINK_IDLE_SEC, default=60" min:"1" max:"86400"`
	MaxBodyMB       int  `env:"MAX_BODY_MB, default=32" min:"1" max:"1024" atmost:"MAX_IN_FLIGHT_MB" part:"10"`
	MaxInFlightMB   int  `env:"MAX_IN_FLIGHT_MB, default=512" min:"64" max:"1048576"`
	MCPSessionTTL   int  `env:"MCP_SESSION_TTL_SEC, default=3600" min:"1" max:"86400" atmost:"SESSION_MAX_AGE_SEC"`
	MCPEnvNames     List `env:"MCP_ENV_NAMES"`
	MCPPythonAlias  bool `env:"MCP_PYTHON_ALIAS, default=false"`
	MCPOutputBytes  int  `env:"MCP_OUTPUT_BYTES, default=30000" min:"1000" max:"10000000"`
	ShutdownTimeout int  `env:"SHUTDOWN_TIMEOUT_SEC, default=30" min:"0" max:"3600"`

	DockerHost      string `env:"DOCKER_HOST"`
	DockerContext   string `env:"DOCKER_CONTEXT"`
	DockerTLSVerify string `env:"DOCKER_TLS_VERIFY"`
	DockerCertPath  string `env:"DOCKER_CERT_PATH"`
	DockerConfig    string `env:"DOCKER_CONFIG"`

	given map[string]bool // the variables that are set
	cores int             // of the machine; zero means that it is not known
}

// Setting describes one setting.
type Setting struct {
	Name, Default, Allowed, Help string
	// Follows describes the value of a setting without a fixed default, if it is not set.
	Follows string

	field reflect.StructField
}

// Settings describes all settings, in the order of [Config].
func Settings() []Setting { return slices.Clone(described()) }

// described makes the descriptions once: they do not change, and each start needs them often.
var described = sync.OnceValue(describe) //nolint:gochecknoglobals // it is never changed

func describe() []Setting {
	var settings []Setting
	texts := descriptions()
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if !field.IsExported() {
			continue
		}
		name, rest, _ := strings.Cut(field.Tag.Get("env"), ", ")
		s := Setting{Name: name, Default: strings.TrimPrefix(rest, "default="), Follows: field.Tag.Get("follows"), field: field}
		s.Help, s.Allowed, _ = strings.Cut(texts[name], " allowed: ")
		if s.Allowed == "" {
			s.Allowed = s.allowed()
		}
		settings = append(settings, s)
	}
	return settings
}

// descriptions returns the texts of settings.txt, by name, each as one line.
func descriptions() map[string]string {
	texts := make(map[string]string)
	for block := range strings.SplitSeq(settingsText, "\n\n") {
		name, text, _ := strings.Cut(block, "\n")
		texts[name] = strings.Join(strings.Fields(text), " ")
	}
	return texts
}

// allowed describes what the tag allows.
func (s Setting) allowed() string {
	words, low, high := s.field.Tag.Get("oneof"), s.field.Tag.Get("min"), s.field.Tag.Get("max")
	switch {
	case words != "":
		return "one of " + strings.Join(strings.Fields(words), ", ")
	case s.field.Type.Kind() == reflect.Int:
		return fmt.Sprintf("a whole number from %s to %s", low, high) + s.bounded()
	case s.field.Type.Kind() == reflect.Float64:
		return fmt.Sprintf("a number from %s to %s", low, high)
	case s.field.Type.Kind() == reflect.Bool:
		return "true or false"
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

// accepts reports whether a value is allowed.
func (s Setting) accepts(value string) bool {
	words := s.field.Tag.Get("oneof")
	switch s.field.Type.Kind() {
	case reflect.Int:
		n, err := strconv.ParseInt(value, 10, 64)
		return err == nil && s.inRange(float64(n))
	case reflect.Float64:
		x, err := strconv.ParseFloat(value, 64)
		return err == nil && s.inRange(x)
	case reflect.Bool:
		_, err := strconv.ParseBool(value)
		return err == nil
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
	values := lookup
	if backend, _ := lookup("EXECUTOR_BACKEND"); hasContainers(settings["EXECUTOR_BACKEND"].canonical(backend)) {
		text, _ := lookup(runArgsName)
		args := parseRunArgs(text)
		values, faults = args.overlay(lookup, settings)
	}
	// The library stops at the first fault. So values are checked before it parses
	// them, and a wrong one is replaced by the default.
	check := envconfig.MutatorFunc(func(_ context.Context, name, _, _, value string) (string, bool, error) {
		s := settings[name]
		if value == "" {
			return s.Default, false, nil
		}
		plain := s.canonical(value)
		if !s.accepts(plain) {
			faults = append(faults, fmt.Errorf("%s is %q: must be %s", name, value, s.Allowed))
			return s.Default, false, nil
		}
		return plain, false, nil
	})
	var c Config
	err := envconfig.ProcessWith(ctx, &envconfig.Config{
		Target: &c, Lookuper: lookuper(values), Mutators: []envconfig.Mutator{check},
	})
	if err != nil {
		return Config{}, fmt.Errorf("settings: %w", err)
	}
	if c.FileStorageDir != "" {
		if c.FileStorageDir, err = filepath.Abs(c.FileStorageDir); err != nil {
			faults = append(faults, fmt.Errorf("FILE_STORAGE_DIR: %w", err))
		}
	}
	c.given = givenNames(values)
	c.derive(largestMachine())
	faults = append(faults, c.keepBounds()...)
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

// contradictions finds settings that are allowed alone but not together, and faults
// that tags cannot describe.
func (c Config) contradictions() []error {
	var faults []error
	faults = append(faults, c.engineFaults()...)
	faults = append(faults, c.localFaults()...)
	faults = append(faults, c.kubernetesFaults()...)
	faults = append(faults, c.runArgFaults()...)
	faults = append(faults, c.storageFaults()...)
	faults = append(faults, c.accessFaults()...)
	faults = append(faults, byName()["MCP_ENV_NAMES"].faults(c.MCPEnvNames, isVariable)...)
	for name := range strings.SplitSeq(c.PreloadModules, ",") {
		if !moduleName().MatchString(strings.TrimSpace(name)) {
			faults = append(faults, fmt.Errorf("PRELOAD_MODULES is %q: must be auto, none, or names of modules separated by commas", c.PreloadModules))
			break
		}
	}
	return faults
}

// localFaults finds settings that the local backend does not allow.
func (c Config) localFaults() []error {
	var faults []error
	if c.LocalRootfs != "" && !filepath.IsAbs(c.LocalRootfs) {
		faults = append(faults, fmt.Errorf("LOCAL_ROOTFS is %q: must be an absolute path", c.LocalRootfs))
	}
	if c.Backend == "local" && c.Network != "none" {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_NETWORK is %q: must be none with EXECUTOR_BACKEND=local, which has no network", c.Network))
	}
	if c.Backend == "local" && c.Image != byName()["PYTHON_EXECUTOR_DOCKER_IMAGE"].Default {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_IMAGE is %q: must not be set with EXECUTOR_BACKEND=local, which has no engine; set LOCAL_PYTHON or LOCAL_ROOTFS instead", c.Image))
	}
	if c.Backend == "local" && c.Runtime != "" {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_RUNTIME is %q: must be empty with EXECUTOR_BACKEND=local, which has no engine", c.Runtime))
	}
	return faults
}

// NeedsEngine reports whether the settings need a container engine: they name an
// image, a network or a runtime other than the default.
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
		faults = append(faults, fmt.Errorf("FILE_STORAGE_URL is %q: must be file:///FOLDER, s3://BUCKET or gs://BUCKET, the latter two with options after a ?",
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

// redact hides credentials in a URL. The text need not be a valid URL.
func redact(address string) string {
	return regexp.MustCompile(`//.*@`).ReplaceAllString(address, "//...@")
}

// moduleName matches names of Python modules.
func moduleName() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$`) }

// isVariable reports whether a request may set an environment variable of some name.
func isVariable(name string) bool {
	reserved := strings.HasPrefix(strings.ToUpper(name), "VIVARIUM_")
	return !reserved && regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`).MatchString(name)
}

// DockerConfigDir returns the Docker CLI's folder, or "" if there is no home.
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
		value := s.Follows
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, value, s.Allowed, s.Help)
	}
	return b.String()
}
