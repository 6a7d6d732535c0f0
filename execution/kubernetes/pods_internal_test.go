package kubernetes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What has become of a pod is in its status.
func TestPodEnds(t *testing.T) {
	end := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason}}
	}
	ended := func(reason string) []corev1.ContainerStatus {
		return []corev1.ContainerStatus{{Name: "sandbox", RestartCount: 1, LastTerminationState: end(reason)}}
	}
	now := metav1.Now()
	for name, test := range map[string]struct {
		change        func(*corev1.Pod)
		why           string
		memory, going bool
		ended         bool
	}{
		"runs": {func(*corev1.Pod) {}, "", false, false, false},
		"OOM":  {func(p *corev1.Pod) { p.Status.ContainerStatuses = ended("OOMKilled") }, "more memory than its pod may", true, false, true},
		// With memory.oom.group, as kubelets set it, and where the kernel has chosen PID 1.
		"OOM of all, seen at once": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "sandbox", State: end("OOMKilled")}}
		}, "more memory than its pod may", true, false, true},
		"OOM of all, seen after the restart": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "sandbox", RestartCount: 1, State: end("Error"), LastTerminationState: end("OOMKilled")}}
		}, "more memory than its pod may", true, false, true},
		// With singleProcessOOMKill a program has ended alone, which PID 1 reports: the kubelet has nothing to.
		"OOM of a program": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "sandbox", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}, "", false, false, false},
		"exited":   {func(p *corev1.Pod) { p.Status.ContainerStatuses = ended("Error") }, "its PID 1 ended with status 0", false, false, true},
		"evicted":  {func(p *corev1.Pod) { p.Status.Reason, p.Status.Message = "Evicted", "low on memory" }, "its node evicted the pod (low on memory)", false, false, true},
		"deadline": {func(p *corev1.Pod) { p.Status.Reason = "DeadlineExceeded" }, "the time of the pod was up", false, false, true},
		"deleted":  {func(p *corev1.Pod) { p.DeletionTimestamp = &now }, "the pod was deleted", false, true, false},
		"lost": {func(p *corev1.Pod) {
			p.DeletionTimestamp = &now
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown"}}
		}, "its node was lost", false, true, false},
		"drained": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Message: "a taint"}}
		}, "its node is to be vacated (a taint)", false, true, false},
		"failed":    {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, "the pod ended", false, false, true},
		"preempted": {func(p *corev1.Pod) { p.Status.Reason = "Preempting" }, "Preempting", false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			from := &corev1.Pod{}
			test.change(from)
			p := readPod(from)
			if !strings.Contains(p.why, test.why) || test.why == "" && p.why != "" {
				t.Errorf("why is %q", p.why)
			}
			if p.memory != test.memory || p.going != test.going || p.ended != test.ended {
				t.Errorf("memory %v, going %v, ended %v", p.memory, p.going, p.ended)
			}
		})
	}
}

// The index keeps the newest that it has heard of a pod, from whomever.
func TestIndexKeepsTheNewest(t *testing.T) {
	of := func(version, state string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u", ResourceVersion: version, Labels: map[string]string{labelState: state}}}
	}
	x := newIndex()
	_ = x.Replace([]any{of("1", stateFree)}, "5")
	x.learn(readPod(of("10", stateRun)))
	_ = x.Update(of("9", stateFree)) // the watch is late
	if p := x.get("a", "u"); p == nil || p.state != stateRun || len(x.free) > 0 {
		t.Errorf("an older state replaces a newer one: %+v", p)
	}
	_ = x.Replace(nil, "9") // a list that is older
	if x.get("a", "u") == nil {
		t.Error("an older list removes a newer pod")
	}
	fate := x.watch(x.get("a", "u"))
	_ = x.Delete(of("12", stateRun))
	<-fate.doomed
	<-fate.gone
	x.learn(readPod(of("11", stateRun))) // an answer that comes late
	if x.get("a", "u") != nil {
		t.Error("a pod that is gone comes back")
	}
	_ = x.Replace([]any{of("20", stateFree)}, "20")
	fate = x.watch(x.get("a", "u"))
	_ = x.Replace(nil, "21")
	<-fate.gone
	if x.hash() != "" {
		t.Errorf("the hash is %q", x.hash())
	}
}

// The version of the template is that of the blanks that came last.
func TestHash(t *testing.T) {
	of := func(name, hash string, created int64) *pod {
		return &pod{
			name: name, uid: name, version: "1", hash: hash, state: stateFree, ready: true, pin: "p", addresses: []string{"a"},
			created: metav1.Unix(created, 0).Time,
		}
	}
	x := newIndex()
	for _, p := range []*pod{of("a", "old", 1), of("b", "old", 90), of("c", "new", 50), of("d", "new", 60)} {
		x.learn(p)
	}
	if hash := x.hash(); hash != "new" {
		t.Errorf("the version is %q", hash)
	}
	for range 20 {
		p := x.take(want{hash: "old"})
		if p.name != "a" { // the older half of two
			t.Errorf("taken is %q", p.name)
		}
		x.settle(p, false)
	}
	if p := x.take(want{hash: "older"}); p == nil {
		t.Error("no blank of another version is taken where there is none of the wanted one")
	}
}
