package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/vivarium-sandbox/vivarium/config"
)

// Labels of the pods of a pool.
const (
	LabelPool   = "vivarium.dev/pool"
	LabelState  = "vivarium.dev/state"
	LabelHolder = "vivarium.dev/holder"
	StateFree   = "free" // a value of LabelState
)

// removeTime bounds the removal of an installation.
const removeTime = 3 * time.Minute

// Pool is a Deployment of blanks, with what a server needs to use it.
type Pool struct {
	*Cluster
	Namespace, Name string
	Label           string // the value of vivarium.dev/pool
	Link            string // the folder with the servers' certificate
	Image           string
	Blanks          int
	release         string // of the chart, and its namespace; empty where it was there before
	root            string // of this module
}

// Values are what an installation of the chart depends on.
type Values struct {
	ServerImage, Image string // the image of the init container, and that of sandboxes
	Blanks             int
	Settings           config.Config // whose limits sandboxes have
	NoQuota            bool          // for more pods than the chart allows
}

// Use returns the pool that the settings of servers name.
func (c *Cluster) Use(ctx context.Context, settings config.Config) (*Pool, error) {
	p := &Pool{Cluster: c, Namespace: settings.KubernetesNamespace, Name: settings.KubernetesPool, Link: settings.KubernetesLinkDir}
	return p, p.find(ctx)
}

// Install installs the chart with a pool and no server, under a name of this process's own.
// A pool beside an error must be removed too.
func (c *Cluster) Install(ctx context.Context, v Values) (*Pool, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	release := fmt.Sprintf("bench-%d", os.Getpid())
	p := &Pool{
		Cluster: c, Namespace: release + "-sandboxes", Name: release + "-vivarium-sandboxes",
		release: release, root: filepath.Dir(strings.TrimSpace(string(out))),
	}
	if p.Link, err = os.MkdirTemp("", "vivarium-bench-link-"); err != nil {
		return p, err
	}
	arguments := []string{"upgrade", "--install", release, "charts/vivarium", "--create-namespace", "--wait", "--timeout", "5m"}
	if err := p.helm(ctx, append(arguments, v.flags()...)...); err != nil {
		return p, err
	}
	if err := p.writeLink(ctx); err != nil {
		return p, err
	}
	return p, p.find(ctx)
}

// flags returns the values of the chart. A pod asks for little of its node, which may be small.
func (v Values) flags() []string {
	quota := fmt.Sprintf("quota.enabled=%v", !v.NoQuota)
	server, serverTag, _ := strings.Cut(v.ServerImage, ":")
	image, tag, _ := strings.Cut(v.Image, ":")
	s := v.Settings
	var all []string
	for _, value := range []string{
		"replicas=0", quota, "image.repository=" + server, "image.tag=" + serverTag,
		"sandboxes.image.repository=" + image, "sandboxes.image.tag=" + tag,
		"sandboxes.free=" + strconv.Itoa(v.Blanks), "sandboxes.cpuRequest=10m", "sandboxes.memoryRequestMB=32",
		fmt.Sprintf("config.MEMORY_LIMIT_MB=%d", s.MemoryLimitMB), fmt.Sprintf("config.WORKSPACE_LIMIT_MB=%d", s.WorkspaceLimitMB),
		fmt.Sprintf("config.TMP_LIMIT_MB=%d", s.TmpLimitMB), fmt.Sprintf("config.CPU_LIMIT=%v", s.CPULimit),
	} {
		all = append(all, "--set", value)
	}
	return all
}

func (p *Pool) helm(ctx context.Context, arguments ...string) error {
	line := append([]string{"tool", "-modfile=tools/chart/go.mod", "helm", "--kubeconfig", p.Kubeconfig, "--namespace", p.release}, arguments...)
	cmd := exec.CommandContext(ctx, "go", line...)
	cmd.Dir = p.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("helm %s: %w\n%s", arguments[0], err, out)
	}
	return nil
}

// writeLink writes the certificate that the chart has made into a folder.
func (p *Pool) writeLink(ctx context.Context) error {
	var secrets corev1.SecretList
	if err := p.Ask(ctx, http.MethodGet, "/api/v1/namespaces/"+p.release+"/secrets", nil, &secrets); err != nil {
		return err
	}
	for _, secret := range secrets.Items {
		if secret.Type != corev1.SecretTypeTLS {
			continue
		}
		for name, text := range secret.Data {
			if err := os.WriteFile(filepath.Join(p.Link, name), text, 0o600); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("the chart has made no certificate")
}

// DeploymentsPath returns the path of the Deployments of the pool's namespace.
func (p *Pool) DeploymentsPath() string {
	return "/apis/apps/v1/namespaces/" + p.Namespace + "/deployments"
}

// find reads what the Deployment says.
func (p *Pool) find(ctx context.Context) error {
	found, err := p.Deployment(ctx)
	if err != nil {
		return err
	}
	p.Label, p.Image, p.Blanks = found.Spec.Template.Labels[LabelPool], found.Spec.Template.Spec.Containers[0].Image, 1
	if found.Spec.Replicas != nil {
		p.Blanks = int(*found.Spec.Replicas)
	}
	return nil
}

// Deployment returns the Deployment of the blanks.
func (p *Pool) Deployment(ctx context.Context) (*appsv1.Deployment, error) {
	var found appsv1.Deployment
	err := p.Ask(ctx, http.MethodGet, p.DeploymentsPath()+"/"+p.Name, nil, &found)
	return &found, err
}

// Environment has a server use the pool.
func (p *Pool) Environment() []string {
	return []string{
		"EXECUTOR_BACKEND=kubernetes", "KUBECONFIG=" + p.Kubeconfig, "KUBERNETES_EXECUTOR_NAMESPACE=" + p.Namespace, "KUBERNETES_POOL=" + p.Name,
		"KUBERNETES_LINK_DIR=" + p.Link, "KUBERNETES_EXECUTOR_IMAGE=" + p.Image, "PYTHON_EXECUTOR_DOCKER_IMAGE=",
	}
}

// Selector selects the pods of the pool in a state.
func (p *Pool) Selector(state string) string {
	return LabelPool + "=" + p.Label + "," + LabelState + "=" + state
}

// AwaitFull waits until as many blanks are ready as there are to be, and no other pod of the
// pool is ending, so that the node has nothing else to do.
func (p *Pool) AwaitFull(ctx context.Context) error {
	const pause = 200 * time.Millisecond
	for {
		pods, err := p.Pods(ctx, p.Namespace, LabelPool+"="+p.Label)
		if err != nil {
			return err
		}
		ready, ending := 0, 0
		for i := range pods.Items {
			switch pod := &pods.Items[i]; {
			case pod.DeletionTimestamp != nil:
				ending++
			case pod.Labels[LabelState] == StateFree && IsReady(pod):
				ready++
			}
		}
		if ready >= p.Blanks && ending == 0 {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d blanks are ready: %w", ready, p.Blanks, context.Cause(ctx))
		}
	}
}

// Remove removes what Install has made. A pool that was there before stays.
func (p *Pool) Remove(ctx context.Context) error {
	if p.release == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	return errors.Join(
		p.helm(ctx, "uninstall", p.release, "--ignore-not-found"),
		Missing(p.Ask(ctx, http.MethodDelete, "/api/v1/namespaces/"+p.release, nil, nil)),
		os.RemoveAll(p.Link),
	)
}
