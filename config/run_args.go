package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const runArgsName = "PYTHON_EXECUTOR_DOCKER_RUN_ARGS"

// RunArgs are flags of `docker run` for the containers of sandboxes. Each is applied, or
// refused where it would open the sandbox or cannot be honoured. Flags that a setting of ours
// covers become that setting's value.
type RunArgs struct {
	// Text is the flags as they are given.
	Text string

	// Env are variables of programs, NAME=VALUE. Labels are NAME=VALUE.
	Env, Labels []string
	// DNS, DNSSearch, DNSOptions and Hosts are for a container that has a network.
	DNS, DNSSearch, DNSOptions, Hosts []string
	// Hostname is empty for the usual one.
	Hostname string
	// SharedMemoryBytes is the size of /dev/shm. Zero is the usual one.
	SharedMemoryBytes int64
	// CPUs and MemoryNodes are those that a container may use, such as 0-3. Empty is all.
	CPUs, MemoryNodes string
	// CPUShares is the weight of a container. Zero is the engine's default.
	CPUShares int64
	// Ulimits are NAME=SOFT:HARD.
	Ulimits []Ulimit

	settings map[string]given // values of settings, by name
	swap     int64            // --memory-swap, or 0
	faults   []error
}

// Ulimit is a limit of each process.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// given is a value of a setting that a flag has.
type given struct{ flag, value string }

// EnvDecode implements [envconfig.Decoder].
func (a *RunArgs) EnvDecode(value string) error {
	*a = parseRunArgs(value)
	return nil
}

// flagKind describes a flag of `docker run`.
type flagKind struct {
	// set applies a value. Its error names what is allowed. Nil only for flags that
	// are refused.
	set func(a *RunArgs, value string) error
	// isSwitch flags have no value, or true or false.
	isSwitch bool
	// refused is why the flag cannot be used.
	refused string
}

func parseRunArgs(text string) RunArgs {
	a := RunArgs{Text: strings.TrimSpace(text), settings: make(map[string]given)}
	words, err := shellWords(text)
	if err != nil {
		a.faults = append(a.faults, fmt.Errorf("%s is not valid: %w", runArgsName, err))
		return a
	}
	known := runFlags()
	for len(words) > 0 {
		var fault error
		words, fault = a.take(known, words)
		if fault != nil {
			a.faults = append(a.faults, fmt.Errorf("%s has %w", runArgsName, fault))
		}
	}
	return a
}

// take applies the first flag and returns the words behind it and its value.
func (a *RunArgs) take(known map[string]flagKind, words []string) ([]string, error) {
	name, value, hasValue, err := cutFlag(words[0])
	rest := words[1:]
	if err != nil {
		return rest, err
	}
	kind, ok := known[name]
	if !ok {
		return nil, fmt.Errorf("%s, which is not supported: the supported flags are %s", name, strings.Join(supportedFlags(known), ", "))
	}
	if kind.isSwitch {
		if more, joined := joinedFlags(words[0]); joined { // -it is -i -t
			rest, hasValue = append([]string{more}, rest...), false
		}
		return rest, a.takeSwitch(name, value, hasValue, kind)
	}
	if !hasValue {
		if len(rest) == 0 {
			return nil, fmt.Errorf("%s without a value", name)
		}
		value, rest = rest[0], rest[1:]
	}
	if kind.refused != "" {
		return rest, fmt.Errorf("%s, which is refused: %s", name, kind.refused)
	}
	if err := kind.set(a, value); err != nil {
		return rest, fmt.Errorf("%s %q: %w", name, value, err)
	}
	return rest, nil
}

// takeSwitch checks a flag that is on or off. A refused one may be off. One that describes
// every sandbox may be on.
func (a *RunArgs) takeSwitch(name, value string, hasValue bool, kind flagKind) error {
	on := !hasValue || slices.Contains([]string{"true", "t", "1"}, strings.ToLower(value))
	off := slices.Contains([]string{"false", "f", "0"}, strings.ToLower(value))
	switch {
	case !on && !off:
		return fmt.Errorf("%s=%s: must be true or false", name, value)
	case on && kind.refused != "":
		return fmt.Errorf("%s, which is refused: %s", name, kind.refused)
	case off && kind.refused == "":
		return fmt.Errorf("%s=%s: every sandbox has it", name, value)
	}
	return nil
}

// cutFlag splits an argument into a flag by its long name, and its value if there is one.
func cutFlag(word string) (name, value string, hasValue bool, err error) {
	switch {
	case strings.HasPrefix(word, "--") && len(word) > 2:
		name, value, hasValue = strings.Cut(word, "=")
		return name, value, hasValue, nil
	case !strings.HasPrefix(word, "-") || len(word) < 2 || word == "--":
		return "", "", false, fmt.Errorf("%q, which is not a flag: the image and the command are not part of the flags", word)
	}
	long, known := shortFlags()[word[1]]
	if !known {
		return word[:2], "", false, nil
	}
	value = strings.TrimPrefix(word[2:], "=")
	return long, value, len(word) > 2, nil
}

// joinedFlags returns the short flags behind the first one of an argument.
func joinedFlags(word string) (string, bool) {
	if strings.HasPrefix(word, "--") || len(word) < 3 || word[2] == '=' {
		return "", false
	}
	return "-" + word[2:], true
}

func supportedFlags(known map[string]flagKind) []string {
	var names []string
	for name, kind := range known {
		if kind.refused == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// overlay returns a lookup of settings that has the values of flags where a setting is not
// set, and the faults of those that are set to another value.
func (a *RunArgs) overlay(lookup func(string) (string, bool), settings map[string]Setting) (func(string) (string, bool), []error) {
	var faults []error
	for name, flag := range a.settings {
		value, _ := lookup(name)
		if value != "" && settings[name].canonical(value) != settings[name].canonical(flag.value) {
			faults = append(faults, fmt.Errorf("%s is %q, and %s has %s, which makes it %q: must be equal, or only one of them set",
				name, value, runArgsName, flag.flag, flag.value))
		}
	}
	return func(name string) (string, bool) {
		if value, ok := lookup(name); value != "" {
			return value, ok
		}
		if flag, ok := a.settings[name]; ok {
			return flag.value, true
		}
		return lookup(name)
	}, faults
}

// runArgFaults finds flags that are refused, and those that do not fit the limits of sandboxes.
func (c Config) runArgFaults() []error {
	if !hasContainers(c.Backend) {
		return nil // they have no effect
	}
	faults := slices.Clone(c.RunArgs.faults)
	memory := int64(c.MemoryLimitMB) << 20
	if swap := c.RunArgs.swap; swap != 0 && swap != memory {
		faults = append(faults, fmt.Errorf("%s has --memory-swap %d: must be the memory of a sandbox, which is %d, because sandboxes have no swap", runArgsName, swap, memory))
	}
	if shared := c.RunArgs.SharedMemoryBytes; shared > memory {
		faults = append(faults, fmt.Errorf("%s has --shm-size %d: must be at most the memory of a sandbox, which is %d", runArgsName, shared, memory))
	}
	networked := len(c.RunArgs.DNS) + len(c.RunArgs.DNSSearch) + len(c.RunArgs.DNSOptions)
	if networked > 0 && (c.Network == "host" || strings.HasPrefix(c.Network, "container:")) {
		faults = append(faults, errors.New(runArgsName+" has --dns, --dns-search or --dns-option: must not be used with the network of another container or of the host"))
	}
	return faults
}
