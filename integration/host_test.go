package integration

import (
	"time"
)

// host is where servers make their sandboxes. The tests see it from outside,
// past the servers.
type host interface {
	// environment has a server make its sandboxes here, with what is in an image.
	environment(image string) []string
	// sandboxes lists those that a server has made and that are still there, its
	// sessions' included.
	sandboxes(instance string) ([]sandbox, error)
	// session lists the sandboxes of a session, whose ever server made them.
	session(id string) ([]sandbox, error)
	// commands gives the command lines of the processes in a sandbox.
	commands(sandbox string) ([]string, error)
	// exists says whether there is a file in a sandbox.
	exists(sandbox, path string) (bool, error)
	// cpuTime is the CPU time that the processes in a sandbox have used.
	cpuTime(sandbox string) (time.Duration, error)
	// kill ends a sandbox as the kernel does where memory is short.
	kill(sandbox string) error
	// freeze stops PID 1 of a sandbox, and thaw lets it go on.
	freeze(sandbox string) error
	thaw(sandbox string) error
	// endSession ends a session that a test has left, if it is there.
	endSession(id string)
	// bury has other servers know at once that one was killed. They may wait before they take over its sessions.
	bury(instance string)
	// traces lists what else there is of a server that has ended in peace.
	traces(instance string) []string
}

// sandbox is one as the host sees it.
type sandbox struct {
	id      string
	running bool // it is no longer being made
}

// with is the environment of a server whose sandboxes have what is in an image.
func with(image string, more ...string) []string {
	return append(shared.host.environment(image), more...)
}

// adapt returns the environment of a server with what its limits need of the host.
func adapt(env []string) ([]string, error) {
	if cluster, ok := shared.host.(*kubernetesHost); ok {
		return cluster.adapt(env)
	}
	return env, nil
}

// inPods reports whether sandboxes are pods.
func inPods() bool {
	_, ok := shared.host.(*kubernetesHost)
	return ok
}

// awaitSandboxes waits until a server has that many sandboxes, and returns how
// many it has in the end.
func awaitSandboxes(instance string, want int) int {
	got := -1
	poll(func() bool {
		if list, err := shared.host.sandboxes(instance); err == nil {
			got = len(list)
		}
		return got == want
	})
	return got
}

// awaitRunning waits until a server has that many sandboxes, all of which run, and
// gives their ids.
func awaitRunning(instance string, want int) (ids []string, ok bool) {
	ok = poll(func() bool {
		list, err := shared.host.sandboxes(instance)
		ids = nil
		for _, s := range list {
			if s.running {
				ids = append(ids, s.id)
			}
		}
		return err == nil && len(list) == want && len(ids) == want
	})
	return ids, ok
}
