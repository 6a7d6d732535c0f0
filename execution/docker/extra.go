package docker

import (
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-units"
)

// Extra are additions to the containers of all sandboxes. They are the same for the whole
// life of a server, so templates do not have them.
type Extra struct {
	// Environment are variables of programs, NAME=VALUE. They replace those of one name.
	Environment []string
	// Labels are NAME or NAME=VALUE.
	Labels []string
	// DNS, DNSSearch, DNSOptions and Hosts (NAME:ADDRESS) are for containers with a network.
	DNS, DNSSearch, DNSOptions, Hosts []string
	// Hostname replaces the usual one. Empty keeps it.
	Hostname string
	// SharedMemoryBytes replaces the usual size of /dev/shm. Zero keeps it.
	SharedMemoryBytes int64
	// CPUs and MemoryNodes are those that a container may use, such as 0-3. Empty is all.
	CPUs, MemoryNodes string
	// CPUShares is the weight of a container. Zero is the engine's default.
	CPUShares int64
	// Ulimits are limits of each process that a sandbox does not have otherwise.
	Ulimits []Ulimit
}

// Ulimit is a limit of each process.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// addTo adds to a container's process.
func (e Extra) addTo(config *container.Config) {
	config.Env = replaceVariables(config.Env, e.Environment)
	if e.Hostname != "" {
		config.Hostname = e.Hostname
	}
	for _, label := range e.Labels {
		name, value, _ := strings.Cut(label, "=")
		config.Labels[name] = value
	}
}

// addToHost adds to a container's restrictions.
func (e Extra) addToHost(host *container.HostConfig) {
	host.DNS, host.DNSSearch, host.DNSOptions = e.DNS, e.DNSSearch, e.DNSOptions
	if e.Hostname != "" {
		host.ExtraHosts = append(host.ExtraHosts, e.Hostname+":127.0.0.1")
	}
	host.ExtraHosts = append(host.ExtraHosts, e.Hosts...)
	host.CpusetCpus, host.CpusetMems, host.CPUShares = e.CPUs, e.MemoryNodes, e.CPUShares
	for _, limit := range e.Ulimits {
		host.Ulimits = append(host.Ulimits, &units.Ulimit{Name: limit.Name, Soft: limit.Soft, Hard: limit.Hard})
	}
}

// replaceVariables returns an environment with variables that replace those of one name.
func replaceVariables(env, with []string) []string {
	for _, variable := range with {
		name, _, _ := strings.Cut(variable, "=")
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		env = append(env, variable)
	}
	return env
}
