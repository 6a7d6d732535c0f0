package link

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// factsVersion is the version of [Facts] as JSON.
const factsVersion = 1

// Facts are what a pod's first container found out about its node, and the pin of the key that
// it made for the pod. They reach servers as JSON in the status of the pod.
type Facts struct {
	Version int    `json:"v"`
	Key     string `json:"key"`    // the pin
	Kernel  string `json:"kernel"` // the release, such as 6.8.0
	Arch    string `json:"arch"`   // as GOARCH
	// UserNS and NetNS report whether a process of the pod can make a user namespace, and a
	// network namespace in it.
	UserNS bool `json:"userns"`
	NetNS  bool `json:"netns"`
	// Seccomp reports whether the runtime filters the system calls of the pod.
	Seccomp bool `json:"seccomp"`
	// OwnUsers reports whether the pod has users of its own (hostUsers: false), which runtimes
	// may ignore.
	OwnUsers bool `json:"ownusers"`
	// Cgroup is the version of cgroups.
	Cgroup int `json:"cgroup"`
	// OOMGroup reports whether the kernel ends all processes of the container if they take too
	// much memory, PID 1 among them (memory.oom.group).
	OOMGroup bool `json:"oomgroup"`
}

// ParseFacts reads facts from their JSON.
func ParseFacts(text string) (Facts, error) {
	var f Facts
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return Facts{}, fmt.Errorf("the facts of the pod are %.40q: must be JSON: %w", text, err)
	}
	if f.Version != factsVersion {
		return Facts{}, fmt.Errorf("the facts of the pod have version %d: must be %d", f.Version, factsVersion)
	}
	if digits, found := strings.CutPrefix(f.Key, pinPrefix); !found || !isHash(digits) {
		return Facts{}, fmt.Errorf("the key in the facts of the pod is %.80q: must be %s and 64 hexadecimal digits", f.Key, pinPrefix)
	}
	return f, nil
}

// isHash reports whether a text is a SHA-256 as hexadecimal digits.
func isHash(digits string) bool {
	const hashBytes = 32
	hash, err := hex.DecodeString(digits)
	return err == nil && len(hash) == hashBytes
}
