package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/config"
)

const (
	// podPoll is how often it is asked whether a pod runs.
	podPoll = 100 * time.Millisecond
	// programFile is the program's file in a pod, below its workspace.
	programFile = "__main__.py"
	workspace   = "/workspace"
)

// barePods runs programs in a cluster with nothing in between, as executors without a pool do: a
// pod for each run, and three commands in it, whose streams pass through the apiserver and the
// kubelet.
type barePods struct {
	cluster   *cluster.Cluster
	namespace string
	image     string
	settings  config.Config
}

// newBarePods makes a namespace for the pods of runs.
func newBarePods(ctx context.Context, pool *cluster.Pool, settings config.Config) (*barePods, error) {
	settings, err := settings.ForMachine(config.Machine{})
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("bench-%d-bare", os.Getpid())
	namespace := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	return &barePods{pool.Cluster, name, pool.Image, settings}, pool.Ask(ctx, http.MethodPost, "/api/v1/namespaces", namespace, nil)
}

// run does one run: create a pod, wait until it runs, copy the program in, run it, copy the
// workspace out, delete the pod. As a server does, it cleans up after its answer.
func (b *barePods) run(ctx context.Context, p program) (timing, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	began := time.Now()
	var pod corev1.Pod
	if err := b.cluster.Ask(ctx, http.MethodPost, cluster.PodsPath(b.namespace), b.pod(), &pod); err != nil {
		return timing{}, b.refused(ctx, "create", err)
	}
	err := b.runIn(ctx, pod.Name, p)
	took := time.Since(began)
	if deleteErr := b.remove(ctx, pod.Name); err == nil && deleteErr != nil {
		err = b.refused(ctx, "delete", deleteErr)
	}
	return timing{took: took}, err
}

func (b *barePods) runIn(ctx context.Context, pod string, p program) error {
	if err := b.awaitRunning(ctx, pod); err != nil {
		return b.refused(ctx, "wait", err)
	}
	archive, err := archiveOf(p)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	if code, err := b.exec(ctx, pod, streams{stdin: archive, stderr: &stderr}, "tar", "-x", "-C", workspace); err != nil || code != 0 {
		return b.refused(ctx, "copy in", errors.Join(err, fmt.Errorf("status %d: %.300s", code, stderr.Bytes())))
	}
	exitCode, err := b.exec(ctx, pod, streams{stdout: &stdout, stderr: &stderr}, "python3", workspace+"/"+programFile)
	if err != nil {
		return b.refused(ctx, "run", err)
	}
	var files, complaints bytes.Buffer
	if code, err := b.exec(ctx, pod, streams{stdout: &files, stderr: &complaints}, "tar", "-c", "-C", workspace, "."); err != nil || code != 0 {
		return b.refused(ctx, "copy out", errors.Join(err, fmt.Errorf("status %d: %.300s", code, complaints.Bytes())))
	}
	return p.check(exitCode, stdout.String(), stderr.String())
}

// refused returns a failure as a refusal, unless the benchmark has ended.
func (b *barePods) refused(ctx context.Context, step string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return &refusal{fmt.Errorf("pod: %s: %w", step, err)}
}

func (b *barePods) awaitRunning(ctx context.Context, name string) error {
	for {
		var pod corev1.Pod
		if err := b.cluster.Ask(ctx, http.MethodGet, cluster.PodsPath(b.namespace)+"/"+name, nil, &pod); err != nil {
			return err
		}
		switch pod.Status.Phase {
		case corev1.PodRunning:
			return nil
		case corev1.PodPending, "":
		default:
			return fmt.Errorf("the pod is %s", pod.Status.Phase)
		}
		if err := sleep(ctx, podPoll); err != nil {
			return err
		}
	}
}

// streams are those of a command; nil is none.
type streams struct {
	stdin          *bytes.Buffer
	stdout, stderr *bytes.Buffer
}

// exec runs a command in a pod and returns its exit status.
func (b *barePods) exec(ctx context.Context, pod string, s streams, line ...string) (int, error) {
	query := url.Values{"command": line, "container": {"main"}}
	var opts remotecommand.StreamOptions
	if s.stdin != nil {
		query.Set("stdin", "true")
		opts.Stdin = s.stdin
	}
	if s.stdout != nil {
		query.Set("stdout", "true")
		opts.Stdout = s.stdout
	}
	if s.stderr != nil {
		query.Set("stderr", "true")
		opts.Stderr = s.stderr
	}
	address := b.cluster.Config.Host + cluster.PodsPath(b.namespace) + "/" + pod + "/exec?" + query.Encode()
	executor, err := remotecommand.NewWebSocketExecutor(b.cluster.Config, http.MethodGet, address)
	if err != nil {
		return 0, err
	}
	err = executor.StreamWithContext(ctx, opts)
	if ended, ok := errors.AsType[utilexec.CodeExitError](err); ok {
		return ended.Code, nil
	}
	return 0, err
}

// archiveOf returns an archive with the program's file.
func archiveOf(p program) (*bytes.Buffer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: programFile, Mode: 0o644, Size: int64(len(p.code))}); err != nil {
		return nil, err
	}
	if _, err := w.Write([]byte(p.code)); err != nil {
		return nil, err
	}
	return &archive, w.Close()
}

// remove deletes a pod without waiting for its end.
func (b *barePods) remove(ctx context.Context, name string) error {
	return b.cluster.Ask(context.WithoutCancel(ctx), http.MethodDelete, cluster.PodsPath(b.namespace)+"/"+name+"?gracePeriodSeconds=1", nil, nil)
}

// pod returns a pod with the limits of the server's sandboxes that waits for commands.
func (b *barePods) pod() *corev1.Pod {
	yes, no, user := true, false, int64(65532)
	quantity := func(megabytes int) resource.Quantity {
		return *resource.NewQuantity(int64(megabytes)<<20, resource.BinarySI)
	}
	room := func(megabytes int) corev1.VolumeSource {
		size := quantity(megabytes)
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "run-"},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "main", Image: b.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "3600"}, WorkingDir: workspace,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: quantity(32)},
					Limits: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse(fmt.Sprint(b.settings.CPULimit)), corev1.ResourceMemory: quantity(b.settings.MemoryLimitMB),
					},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "workspace", MountPath: workspace}, {Name: "tmp", MountPath: "/tmp"}},
			}},
			Volumes: []corev1.Volume{
				{Name: "workspace", VolumeSource: room(b.settings.WorkspaceLimitMB)}, {Name: "tmp", VolumeSource: room(b.settings.TmpLimitMB)},
			},
		},
	}
}

// settle implements [bareSide].
func (b *barePods) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fullTime, fmt.Errorf("pods are still there after %v", fullTime))
	defer cancel()
	for {
		left, err := b.cluster.Pods(ctx, b.namespace, "")
		if err != nil || len(left.Items) == 0 {
			return err
		}
		if err := sleep(ctx, podPoll); err != nil {
			return err
		}
	}
}

// close implements [bareSide]. It removes the namespace, with what runs that failed have left.
func (b *barePods) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := b.cluster.Ask(ctx, http.MethodDelete, "/api/v1/namespaces/"+b.namespace, nil, nil); err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	return nil
}
