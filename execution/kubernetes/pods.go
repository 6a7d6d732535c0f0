package kubernetes

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// Labels and annotations of pods.
const (
	labelPool    = "vivarium.dev/pool"    // whose blanks they are
	labelState   = "vivarium.dev/state"   // stateFree, stateRun or stateSession
	labelHolder  = "vivarium.dev/holder"  // the server that has claimed it
	labelSession = "vivarium.dev/session" // the id of its session
	labelHash    = "pod-template-hash"    // the Deployment controller's name for a version of the template

	noteKey     = "vivarium.dev/key"     // the pin of its key
	noteOwner   = "vivarium.dev/owner"   // of the session
	noteCreated = "vivarium.dev/created" // times in milliseconds since 1970
	noteExpires = "vivarium.dev/expires"
	noteLatest  = "vivarium.dev/latest"
	noteIdle    = "vivarium.dev/idle" // in milliseconds
	noteEvict   = "cluster-autoscaler.kubernetes.io/safe-to-evict"
	notePeer    = "vivarium.dev/peer" // of a Lease: where other servers reach its server

	stateFree    = "free"
	stateRun     = "run"
	stateSession = "session"
)

// Names of the template's containers.
const (
	sandboxContainer  = "sandbox"
	identityContainer = "identity"
)

// pod is what the backend knows of a pod. It is never changed. A large pool has many, so it
// keeps little of what the apiserver has.
type pod struct {
	name, uid string
	version   string // of the object
	hash      string // of the template
	state     string
	holder    string
	created   time.Time
	claim     string    // the name of its SandboxClaim
	started   time.Time // when the kubelet took it, from which activeDeadlineSeconds counts
	addresses []string
	facts     link.Facts
	pin       string // of its key; empty where it is not known
	noted     bool   // it has annotations

	ready   bool
	going   bool   // it is to go, or is being deleted
	deleted bool   // it is being deleted
	ended   bool   // its container has ended, once at least
	memory  bool   // ... because the cgroup ran out of memory
	waiting string // what the kubelet waits for
	why     string // why it is going or has ended

	session execution.SessionInfo // of a session
}

// readPod returns what the backend keeps of a pod.
func readPod(from *corev1.Pod) *pod {
	p := &pod{
		name: strings.Clone(from.Name), uid: string(from.UID), version: from.ResourceVersion, hash: from.Labels[labelHash],
		state: from.Labels[labelState], holder: from.Labels[labelHolder], created: from.CreationTimestamp.Time,
		noted: len(from.Annotations) > 0, pin: from.Annotations[noteKey], claim: from.Annotations[noteClaim],
		going: from.DeletionTimestamp != nil, deleted: from.DeletionTimestamp != nil, waiting: waitingFor(from),
	}
	if from.Status.StartTime != nil {
		p.started = from.Status.StartTime.Time
	}
	for _, address := range from.Status.PodIPs {
		p.addresses = append(p.addresses, address.IP)
	}
	if p.state == "" && from.Labels[labelSandbox] != "" { // none of its labels says so
		p.state = stateFree
	}
	p.readFacts(from)
	p.readState(from)
	if p.state == stateSession {
		p.session = sessionOf(from)
	}
	return p
}

// readFacts reads what the init container has found out.
func (p *pod) readFacts(from *corev1.Pod) {
	for _, status := range from.Status.InitContainerStatuses {
		if status.Name != identityContainer || status.State.Terminated == nil {
			continue
		}
		facts, err := link.ParseFacts(status.State.Terminated.Message)
		if err != nil {
			p.waiting = err.Error()
			return
		}
		p.facts, p.pin = facts, cmp.Or(p.pin, facts.Key)
	}
}

// readState reads how the pod is.
func (p *pod) readState(from *corev1.Pod) {
	if p.deleted {
		p.why = "the pod was deleted"
	}
	for _, condition := range from.Status.Conditions {
		switch {
		case condition.Type == corev1.PodReady:
			p.ready = condition.Status == corev1.ConditionTrue
			if condition.Status == corev1.ConditionUnknown || condition.Reason == "NodeStatusUnknown" {
				p.why = "its node was lost"
			}
		case condition.Type == corev1.DisruptionTarget && condition.Status == corev1.ConditionTrue:
			p.going, p.why = true, because("its node is to be vacated", condition.Message)
		}
	}
	for _, status := range from.Status.ContainerStatuses {
		last := cmp.Or(status.State.Terminated, status.LastTerminationState.Terminated)
		if status.Name != sandboxContainer || last == nil && status.RestartCount == 0 {
			continue
		}
		p.ended = true
		switch {
		case outOfMemory(status):
			p.memory, p.why = true, "all of it was killed, since it used more memory than its pod may"
		case last != nil && p.why == "":
			p.why = fmt.Sprintf("its PID 1 ended with status %d", last.ExitCode)
		}
	}
	switch from.Status.Reason {
	case "":
	case "Evicted":
		p.ended, p.why = true, because("its node evicted the pod", from.Status.Message)
	case "DeadlineExceeded":
		p.ended, p.why = true, "the time of the pod was up"
	case "NodeLost":
		p.ended, p.why = true, "its node was lost"
	default:
		p.ended, p.why = true, because("the pod ended: "+from.Status.Reason, from.Status.Message)
	}
	if from.Status.Phase == corev1.PodFailed || from.Status.Phase == corev1.PodSucceeded {
		p.ended, p.why = true, cmp.Or(p.why, "the pod ended")
	}
}

// outOfMemory reports whether the kernel has ended a container for its memory. The kubelet starts it
// again at once, where it ends because its key is gone. So the reason may be that of the end before.
func outOfMemory(status corev1.ContainerStatus) bool {
	for _, end := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
		if end != nil && end.Reason == "OOMKilled" {
			return true
		}
	}
	return false
}

// because joins a sentence and what Kubernetes says, if it says anything.
func because(what, message string) string {
	if message == "" {
		return what
	}
	return what + " (" + execution.Clip(message) + ")"
}

// waitingFor returns what a container of a pod waits for, if that is not the usual course of
// its start: an image, or what the container runtime refuses.
func waitingFor(from *corev1.Pod) string {
	for _, statuses := range [][]corev1.ContainerStatus{from.Status.InitContainerStatuses, from.Status.ContainerStatuses} {
		for _, status := range statuses {
			switch w := status.State.Waiting; {
			case w == nil, w.Reason == "", w.Reason == "PodInitializing", w.Reason == "ContainerCreating":
			default:
				message := w.Message
				if last := status.LastTerminationState.Terminated; last != nil {
					message = cmp.Or(last.Message, message) // what it said before it ended
				}
				return because("container "+status.Name+": "+w.Reason, message)
			}
		}
	}
	for _, condition := range from.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return because("no node takes it", condition.Message)
		}
	}
	return ""
}

// sessionOf returns the session of a pod.
func sessionOf(from *corev1.Pod) execution.SessionInfo {
	milliseconds := func(note string) int64 {
		n, _ := strconv.ParseInt(from.Annotations[note], 10, 64) // zero, as where there is none
		return n
	}
	return execution.SessionInfo{
		ID: from.Labels[labelSession], Owner: execution.Owner(from.Annotations[noteOwner]),
		Created: time.UnixMilli(milliseconds(noteCreated)), Expires: time.UnixMilli(milliseconds(noteExpires)),
		Latest: time.UnixMilli(milliseconds(noteLatest)), Idle: time.Duration(milliseconds(noteIdle)) * time.Millisecond,
	}
}

// blank reports whether the pod can be claimed.
func (p *pod) blank() bool {
	return p.state == stateFree && p.ready && !p.going && !p.ended && p.pin != "" && len(p.addresses) > 0
}

// runs reports whether the pod's supervisor may be alive.
func (p *pod) runs() bool { return !p.deleted && !p.ended }

// class identifies the kind of node that the pod is on.
func (p *pod) class() string {
	return strings.Join([]string{
		p.facts.Kernel, p.facts.Arch, "userns=" + strconv.FormatBool(p.facts.UserNS), "netns=" + strconv.FormatBool(p.facts.NetNS),
	}, " ")
}

// trim drops, before the library keeps a pod in its own list, what readPod does not read. Most of
// a pod is its specification.
func trim(object any) (any, error) {
	if from, ok := object.(*corev1.Pod); ok {
		from.Spec, from.ManagedFields = corev1.PodSpec{}, nil
	}
	return object, nil
}
