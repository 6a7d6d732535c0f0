package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// crowdName is the name of the Deployment, and the value of vivarium.dev/pool.
const crowdName = "scale"

// crowd is the pods of a Deployment that has none of its own.
type crowd struct {
	pool     *cluster.Pool
	template corev1.PodTemplateSpec
}

// newCrowd makes a Deployment with the template of a pool, which it replaces there. It is paused:
// it makes no ReplicaSet, which would delete the pods.
func newCrowd(ctx context.Context, pool *cluster.Pool) (*crowd, error) {
	found, err := pool.Deployment(ctx)
	if err != nil {
		return nil, err
	}
	made := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: crowdName}, Spec: found.Spec}
	none := int32(0)
	made.Spec.Replicas, made.Spec.Paused = &none, true
	made.Spec.Selector.MatchLabels[cluster.LabelPool] = crowdName
	made.Spec.Template.Labels[cluster.LabelPool] = crowdName
	if err := pool.Ask(ctx, http.MethodPost, pool.DeploymentsPath(), made, nil); err != nil {
		return nil, err
	}
	pool.Name, pool.Label = crowdName, crowdName
	return &crowd{pool, made.Spec.Template}, nil
}

// make makes the pods, sessions first.
func (c *crowd) make(ctx context.Context, o options, say func(format string, args ...any)) error {
	began := time.Now()
	var next atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	for range o.writers {
		group.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= o.pods {
					return nil
				}
				if err := c.add(groupCtx, n, n < o.sessions); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	const writesEach = 2
	took := time.Since(began)
	say("%d pods made in %.0f s, %d at once: %.0f writes a second", o.pods, took.Seconds(), o.writers, float64(writesEach*o.pods)/took.Seconds())
	return c.describe(ctx, say)
}

// describe reports how large one of the pods is.
func (c *crowd) describe(ctx context.Context, say func(format string, args ...any)) error {
	var object json.RawMessage
	if err := c.pool.Ask(ctx, http.MethodGet, cluster.PodsPath(c.pool.Namespace)+"/"+podName(0), nil, &object); err != nil {
		return err
	}
	var pod corev1.Pod
	if err := json.Unmarshal(object, &pod); err != nil {
		return err
	}
	stored, err := pod.Marshal() // as etcd has it
	if err != nil {
		return err
	}
	say("a pod is %d bytes as JSON and %d as etcd keeps it", len(object), len(stored))
	return nil
}

// podName returns the name of a pod, as long as those of a ReplicaSet are.
func podName(n int) string { return fmt.Sprintf("vivarium-sandboxes-%010d-%05d", 0, n) }

// add makes a pod and writes its status. No scheduler has the name that it waits for.
func (c *crowd) add(ctx context.Context, n int, isSession bool) error {
	pod := corev1.Pod{ObjectMeta: *c.template.ObjectMeta.DeepCopy(), Spec: *c.template.Spec.DeepCopy()}
	pod.Name, pod.Spec.SchedulerName = podName(n), "none"
	pod.Labels["pod-template-hash"] = crowdName
	if isSession {
		c.describeSession(&pod)
	}
	path := cluster.PodsPath(c.pool.Namespace)
	var made corev1.Pod
	if err := c.pool.Ask(ctx, http.MethodPost, path, pod, &made); err != nil {
		return err
	}
	made.Status = status(n)
	return c.pool.Ask(ctx, http.MethodPut, path+"/"+made.Name+"/status", made, nil)
}

// describeSession makes a pod a session of a server that is not there.
func (c *crowd) describeSession(pod *corev1.Pod) {
	now := time.Now()
	at := func(later time.Duration) string { return strconv.FormatInt(now.Add(later).UnixMilli(), 10) }
	pod.Labels[cluster.LabelState], pod.Labels[cluster.LabelHolder] = "session", "scale"
	pod.Labels["vivarium.dev/session"] = execution.NewID()
	if pod.Annotations == nil {
		pod.Annotations = make(map[string]string)
	}
	for name, value := range map[string]string{
		"key": pin(), "owner": execution.NewID(), "created": at(0), "expires": at(time.Hour), "latest": at(2 * time.Hour), "idle": "900000",
	} {
		pod.Annotations["vivarium.dev/"+name] = value
	}
}

// pin returns the pin of a key that does not exist.
func pin() string {
	var hash [32]byte
	_, _ = rand.Read(hash[:]) // never fails
	return "sha256:" + hex.EncodeToString(hash[:])
}

// status returns what a kubelet reports of a pod that is ready.
func status(n int) corev1.PodStatus {
	facts, _ := json.Marshal(link.Facts{Version: 1, Key: pin(), Kernel: "6.8.0-100-generic", Arch: "amd64", UserNS: true, NetNS: true, Cgroup: 2, OOMGroup: true})
	now, yes := metav1.Now(), true
	address := fmt.Sprintf("10.%d.%d.%d", 100+n>>16, n>>8&255, n&255)
	id := "containerd://" + pin()[len("sha256:"):]
	s := corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}}, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		StartTime: &now, QOSClass: corev1.PodQOSBurstable,
		InitContainerStatuses: []corev1.ContainerStatus{{
			Name: "identity", Ready: true, Started: new(bool), Image: "docker.io/vivarium/server:0", ImageID: "sha256:" + id, ContainerID: id,
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "Completed", Message: string(facts), StartedAt: now, FinishedAt: now, ContainerID: id,
			}},
		}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "sandbox", Ready: true, Started: &yes, Image: "docker.io/vivarium/sandbox:0", ImageID: "sha256:" + id, ContainerID: id,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, kind := range []corev1.PodConditionType{
		corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return s
}

// remove deletes the pods. One without a node is gone at once.
func (c *crowd) remove(ctx context.Context) error {
	const removeTime, page = 10 * time.Minute, 500
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	selector := url.QueryEscape(cluster.LabelPool + "=" + crowdName)
	for {
		var left corev1.PodList
		path := cluster.PodsPath(c.pool.Namespace)
		if err := c.pool.Ask(ctx, http.MethodGet, fmt.Sprintf("%s?limit=%d&labelSelector=%s", path, page, selector), nil, &left); err != nil || len(left.Items) == 0 {
			return err
		}
		group, groupCtx := errgroup.WithContext(ctx)
		const deleters = 8
		group.SetLimit(deleters)
		for _, pod := range left.Items {
			group.Go(func() error {
				return cluster.Missing(c.pool.Ask(groupCtx, http.MethodDelete, path+"/"+pod.Name+"?gracePeriodSeconds=0", nil, nil))
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
}
