package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// shortFlags returns the long names of the short flags of `docker run` that are known.
func shortFlags() map[byte]string {
	return map[byte]string{
		'm': "--memory", 'e': "--env", 'l': "--label", 'h': "--hostname", 'c': "--cpu-shares", 'v': "--volume", 'p': "--publish",
		'P': "--publish-all", 'u': "--user", 'w': "--workdir", 'd': "--detach", 'i': "--interactive", 't': "--tty",
	}
}

// runFlags returns the flags of `docker run` that are known, by their long names.
func runFlags() map[string]flagKind {
	flags := map[string]flagKind{
		"--memory":      {set: setMegabytes("MEMORY_LIMIT_MB", "--memory")},
		"--memory-swap": {set: setSwap},
		"--cpus":        {set: setting("CPU_LIMIT", "--cpus")},
		"--pids-limit":  {set: setting("PIDS_LIMIT", "--pids-limit")},
		"--network":     {set: setNetwork},
		"--net":         {set: setNetwork},
		"--runtime":     {set: setting("PYTHON_EXECUTOR_DOCKER_RUNTIME", "--runtime")},
		"--tmpfs":       {set: setTmpfs},
		"--ulimit":      {set: setUlimit},
		"--shm-size":    {set: setSharedMemory},
		"--cpuset-cpus": {set: setCPUs(func(a *RunArgs) *string { return &a.CPUs })},
		"--cpuset-mems": {set: setCPUs(func(a *RunArgs) *string { return &a.MemoryNodes })},
		"--cpu-shares":  {set: setShares},
		"--env":         {set: setEnv},
		"--label":       {set: setLabel},
		"--hostname":    {set: setHostname},
		"--dns":         {set: setText(func(a *RunArgs) *[]string { return &a.DNS })},
		"--dns-search":  {set: setText(func(a *RunArgs) *[]string { return &a.DNSSearch })},
		"--dns-option":  {set: setText(func(a *RunArgs) *[]string { return &a.DNSOptions })},
		"--add-host":    {set: setHost},

		// Every sandbox has these.
		"--cap-drop":     {set: setNothing},
		"--security-opt": {set: setSecurity},
		"--pull":         {set: only("missing")},
		"--workdir":      {set: only("/workspace")},
		"--log-driver":   {set: only("none")},
		"--ipc":          {set: only("private")},
		"--cgroupns":     {set: only("private")},
	}
	for _, name := range []string{"--rm", "--read-only", "--detach", "--interactive", "--no-healthcheck"} {
		flags[name] = flagKind{isSwitch: true}
	}
	for name, why := range refusedFlags() {
		flags[name] = flagKind{refused: why}
	}
	for _, name := range []string{"--privileged", "--oom-kill-disable", "--publish-all", "--init", "--tty"} {
		flags[name] = flagKind{isSwitch: true, refused: flags[name].refused}
	}
	return flags
}

// refusedFlags returns why flags are refused.
func refusedFlags() map[string]string {
	const ours = "the server decides it for each sandbox"
	refused := map[string]string{
		"--name": ours, "--user": ours, "--entrypoint": ours, "--cidfile": ours, "--restart": ours, "--init": "each sandbox has a first process of ours",
		"--tty":      "the server talks to sandboxes over their streams",
		"--env-file": "give each variable with --env", "--label-file": "give each label with --label",
		"--platform": "set PYTHON_EXECUTOR_DOCKER_IMAGE to an image of the platform",
	}
	for _, name := range []string{
		"--privileged", "--cap-add", "--device", "--device-cgroup-rule", "--device-read-bps", "--gpus", "--volume", "--mount", "--volumes-from",
		"--volume-driver", "--pid", "--uts", "--userns", "--cgroup-parent", "--group-add", "--oom-kill-disable", "--oom-score-adj", "--publish",
		"--publish-all", "--expose", "--link", "--sysctl", "--use-api-socket",
	} {
		refused[name] = "it would open the sandbox"
	}
	return refused
}

// setting returns a setter of a setting of ours, which checks the value.
func setting(name, flag string) func(*RunArgs, string) error {
	return func(a *RunArgs, value string) error {
		if before, twice := a.settings[name]; twice && before.value != value {
			return fmt.Errorf("must be given once: %s has made %s %q", before.flag, name, before.value)
		}
		if s := byName()[name]; value == "" || !s.accepts(s.canonical(value)) {
			return fmt.Errorf("must be %s, as %s", s.Allowed, name)
		}
		a.settings[name] = given{flag, value}
		return nil
	}
}

func setMegabytes(name, flag string) func(*RunArgs, string) error {
	return func(a *RunArgs, value string) error {
		bytes, err := byteSize(value)
		if err != nil {
			return err
		}
		if bytes%(1<<20) != 0 {
			return errors.New("must be a whole number of megabytes")
		}
		return setting(name, flag)(a, strconv.FormatInt(bytes>>20, 10))
	}
}

func setSwap(a *RunArgs, value string) (err error) {
	a.swap, err = byteSize(value)
	return err
}

func setNetwork(a *RunArgs, value string) error {
	if value == "host" {
		return errors.New("is refused: it would open the sandbox")
	}
	return setting("PYTHON_EXECUTOR_DOCKER_NETWORK", "--network")(a, value)
}

// setTmpfs sets the size of a folder in memory. Its other options are those of every
// sandbox.
func setTmpfs(a *RunArgs, value string) error {
	path, options, _ := strings.Cut(value, ":")
	name := map[string]string{"/tmp": "TMP_LIMIT_MB", "/workspace": "WORKSPACE_LIMIT_MB"}[path]
	if name == "" {
		return errors.New("must be /tmp or /workspace, the folders in memory that a sandbox has")
	}
	for option := range strings.SplitSeq(options, ",") {
		size, isSize := strings.CutPrefix(option, "size=")
		switch {
		case isSize:
			if err := setMegabytes(name, "--tmpfs")(a, size); err != nil {
				return err
			}
		case !slices.Contains([]string{"", "rw", "nosuid", "nodev", "noexec"}, option) && (option != "exec" || path != "/workspace"):
			return fmt.Errorf("has the option %q: must be size=, or one that the folder has already", option)
		}
	}
	return nil
}

func setUlimit(a *RunArgs, value string) error {
	name, limits, _ := strings.Cut(value, "=")
	softText, hardText, two := strings.Cut(limits, ":")
	if !two {
		hardText = softText
	}
	soft, softErr := strconv.ParseInt(softText, 10, 64)
	hard, hardErr := strconv.ParseInt(hardText, 10, 64)
	if softErr != nil || hardErr != nil || soft < 0 || hard < soft {
		return errors.New("must be NAME=SOFT or NAME=SOFT:HARD, in whole numbers")
	}
	switch name {
	case "cpu":
		return setting("CPU_TIME_LIMIT_SEC", "--ulimit cpu")(a, hardText)
	case "fsize", "locks", "msgqueue", "stack":
		a.Ulimits = append(a.Ulimits, Ulimit{name, soft, hard})
		return nil
	case "nproc":
		return errors.New("must not be set: PIDS_LIMIT bounds processes")
	}
	return errors.New("must be of cpu, fsize, locks, msgqueue or stack: sandboxes have limits of their own for the others")
}

func setSharedMemory(a *RunArgs, value string) (err error) {
	a.SharedMemoryBytes, err = byteSize(value)
	return err
}

func setCPUs(field func(*RunArgs) *string) func(*RunArgs, string) error {
	return func(a *RunArgs, value string) error {
		if !regexp.MustCompile(`^\d+(-\d+)?(,\d+(-\d+)?)*$`).MatchString(value) {
			return errors.New("must be numbers and ranges, such as 0-2,4")
		}
		*field(a) = value
		return nil
	}
}

func setShares(a *RunArgs, value string) error {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 2 || n > 262144 {
		return errors.New("must be a whole number from 2 to 262144")
	}
	a.CPUShares = n
	return nil
}

// setEnv sets a variable of programs. Those that would change the supervisor are refused;
// it ignores Python's.
func setEnv(a *RunArgs, value string) error {
	name, _, ok := strings.Cut(value, "=")
	switch {
	case !ok || name == "":
		return errors.New("must be NAME=VALUE")
	case strings.ContainsRune(value, 0):
		return errors.New("must not contain NUL")
	case strings.HasPrefix(name, "VIVARIUM_"), strings.HasPrefix(name, "LD_"), name == "PATH", name == "HOME", strings.HasPrefix(name, "GLIBC_"):
		return fmt.Errorf("must not set %s: the server's own process in the sandbox uses it", name)
	}
	a.Env = append(a.Env, value)
	return nil
}

func setLabel(a *RunArgs, value string) error {
	if name, _, _ := strings.Cut(value, "="); name == "" || strings.HasPrefix(name, "vivarium.") {
		return errors.New("must be NAME or NAME=VALUE, and the name must not begin with vivarium., as the server's labels do")
	}
	a.Labels = append(a.Labels, value)
	return nil
}

func setHostname(a *RunArgs, value string) error {
	if len(value) > 63 || !hostName().MatchString(strings.ToLower(value)) {
		return errors.New("must be a host name of at most 63 characters")
	}
	a.Hostname = value
	return nil
}

func setText(field func(*RunArgs) *[]string) func(*RunArgs, string) error {
	return func(a *RunArgs, value string) error {
		if value == "" {
			return errors.New("must not be empty")
		}
		*field(a) = append(*field(a), value)
		return nil
	}
}

// setHost adds a name, as NAME:ADDRESS or NAME=ADDRESS.
func setHost(a *RunArgs, value string) error {
	at := strings.IndexAny(value, ":=")
	if at <= 0 || at == len(value)-1 {
		return errors.New("must be NAME:ADDRESS")
	}
	a.Hosts = append(a.Hosts, value[:at]+":"+value[at+1:])
	return nil
}

func setNothing(*RunArgs, string) error { return nil }

func setSecurity(_ *RunArgs, value string) error {
	switch value {
	case "no-new-privileges", "no-new-privileges:true", "no-new-privileges=true":
		return nil
	}
	return errors.New("is refused: it would open the sandbox, which has a seccomp profile of its own and no-new-privileges")
}

// only returns a setter of a flag that has one value in every sandbox.
func only(fixed string) func(*RunArgs, string) error {
	return func(_ *RunArgs, value string) error {
		if value != fixed {
			return fmt.Errorf("must be %s, which every sandbox has", fixed)
		}
		return nil
	}
}

// byteSize parses a size as Docker does: 256m, 1.5g, 512MiB.
func byteSize(text string) (int64, error) {
	parts := regexp.MustCompile(`^(\d+(?:\.\d+)?) ?(?:([kmgt])i?)?b?$`).FindStringSubmatch(strings.ToLower(text))
	if parts == nil {
		return 0, errors.New("must be a size, such as 256m or 1g")
	}
	number, err := strconv.ParseFloat(parts[1], 64)
	size := number * math.Pow(1024, float64(strings.Index(" kmgt", cmp.Or(parts[2], " "))))
	if err != nil || size < 1 || size > 1<<50 {
		return 0, errors.New("must be a size from 1 byte to 1 PB")
	}
	return int64(size), nil
}
