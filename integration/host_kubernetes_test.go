package integration

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// kubernetesHost is a cluster whose only node is this machine (scripts/cluster.sh). The
// servers of the tests are processes of this machine. Sandboxes are pods, and go by their
// PID 1 as those of the local backend do.
type kubernetesHost struct {
	*localHost
	client     *http.Client
	address    string
	kubeconfig string
	link       string // the folder with the servers' certificate

	mu    sync.Mutex
	pools map[string]bool // that were made for servers with other limits
}

var _ host = (*kubernetesHost)(nil)

// release is the name under which this process installs the chart, and of its namespace, so that two suites do not
// meet.
func release() string { return fmt.Sprintf("integration-%d", os.Getpid()) }

func sandboxNamespace() string { return release() + "-sandboxes" }

// blanks are the free sandboxes that a pool keeps.
const blanks = 3

func newKubernetesHost(ctx context.Context, folder string) (*kubernetesHost, error) {
	kubeconfig := os.Getenv("KUBECONFIG")
	if kubeconfig == "" {
		kubeconfig = "/var/lib/vivarium-cluster/admin.kubeconfig"
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("the tests need a cluster (scripts/cluster.sh up): %w", err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	h := &kubernetesHost{
		localHost: newLocalHost(nil, "", os.Geteuid()), client: client, address: config.Host, kubeconfig: kubeconfig,
		link: filepath.Join(folder, "link"), pools: make(map[string]bool),
	}
	if err := h.install(ctx); err != nil {
		return nil, err
	}
	return h, errors.Join(os.Mkdir(h.link, 0o700), h.writeLink(ctx))
}

// install installs the chart with no server of its own.
func (h *kubernetesHost) install(ctx context.Context) error {
	var values []string
	for _, value := range []string{
		"replicas=0", "image.tag=integration", "sandboxes.image.tag=slim", "image.pullPolicy=Never", "sandboxes.image.pullPolicy=Never",
		fmt.Sprintf("sandboxes.free=%d", blanks), "sandboxes.cpuRequest=10m", "sandboxes.memoryRequestMB=32",
		"limitRange.enabled=false", // for pools that adapt makes
		"config.MEMORY_LIMIT_MB=256", "config.WORKSPACE_LIMIT_MB=64", "config.TMP_LIMIT_MB=64",
	} {
		values = append(values, "--set", value)
	}
	arguments := append([]string{
		"tool", "-modfile=../tools/chart/go.mod", "helm", "--kubeconfig", h.kubeconfig, "upgrade", "--install", release(),
		"../charts/vivarium", "--namespace", release(), "--create-namespace", "--wait", "--timeout", "5m",
	}, values...)
	if out, err := exec.CommandContext(ctx, "go", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("installing the chart: %w\n%s", err, out)
	}
	return nil
}

// close removes what install and adapt have made.
func (h *kubernetesHost) close() error {
	arguments := []string{"tool", "-modfile=../tools/chart/go.mod", "helm", "--kubeconfig", h.kubeconfig, "uninstall", release(), "--namespace", release()}
	out, err := exec.Command("go", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("uninstalling the chart: %w\n%s", err, out)
	}
	return h.ask(http.MethodDelete, "/api/v1/namespaces/"+release(), nil, nil)
}

// writeLink writes the certificate with which the servers identify themselves to sandboxes.
func (h *kubernetesHost) writeLink(ctx context.Context) error {
	var secrets corev1.SecretList
	if err := h.ask(http.MethodGet, "/api/v1/namespaces/"+release()+"/secrets", nil, &secrets); err != nil {
		return err
	}
	for _, secret := range secrets.Items {
		if secret.Type != corev1.SecretTypeTLS {
			continue
		}
		for name, text := range secret.Data {
			if err := os.WriteFile(filepath.Join(h.link, name), text, 0o600); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	return errors.New("the chart has made no certificate")
}

func deploymentsPath() string {
	return "/apis/apps/v1/namespaces/" + sandboxNamespace() + "/deployments"
}

// ask makes a request to the apiserver. A missing object is no error: answer stays as it is.
func (h *kubernetesHost) ask(method, path string, body, answer any) error {
	var text bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(context.Background(), method, h.address+path, &text)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil
	case resp.StatusCode >= http.StatusBadRequest:
		message, _ := io.ReadAll(io.LimitReader(resp.Body, 2000))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, message)
	case answer == nil:
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

func (h *kubernetesHost) environment(image string) []string {
	return []string{
		"EXECUTOR_BACKEND=kubernetes", "KUBECONFIG=" + h.kubeconfig, "KUBERNETES_EXECUTOR_NAMESPACE=" + sandboxNamespace(),
		"KUBERNETES_LINK_DIR=" + h.link, "KUBERNETES_POOL=" + basePool(), "KUBERNETES_EXECUTOR_IMAGE=" + image,
		"MEMORY_LIMIT_MB=256", "WORKSPACE_LIMIT_MB=64", "TMP_LIMIT_MB=64",
	}
}

func basePool() string { return release() + "-vivarium-sandboxes" }

// limits of a pool, which settings of servers name.
type poolLimits struct{ image, memory, workspace, temp, cpus string }

// adapt names the pool that suits a server's settings, and makes it if there is none. A server that names a pool of a
// test's own gets that.
func (h *kubernetesHost) adapt(env []string) ([]string, error) {
	of := func(name string) (value string) {
		for _, entry := range env { // the last one counts
			if v, ok := strings.CutPrefix(entry, name+"="); ok {
				value = v
			}
		}
		return value
	}
	if of("EXECUTOR_BACKEND") != "kubernetes" || of("KUBERNETES_POOL") != basePool() {
		return env, nil
	}
	limits := poolLimits{
		image: of("KUBERNETES_EXECUTOR_IMAGE"), memory: of("MEMORY_LIMIT_MB"), workspace: of("WORKSPACE_LIMIT_MB"),
		temp: of("TMP_LIMIT_MB"), cpus: of("CPU_LIMIT"),
	}
	if limits.memory == "" { // the defaults of docs/settings.md
		limits.memory, limits.workspace, limits.temp = "1024", cmp.Or(limits.workspace, "512"), cmp.Or(limits.temp, "256")
	}
	name, err := h.poolFor(limits)
	return append(slices.Clip(env), "KUBERNETES_POOL="+name), err
}

// poolFor returns the pool with some limits.
func (h *kubernetesHost) poolFor(limits poolLimits) (string, error) {
	memory, err := strconv.Atoi(limits.memory)
	if err != nil || memory <= 256 {
		memory = 256
	}
	cpus := limits.cpus
	if cpus == "" {
		cpus = "1"
	}
	name := basePool()
	if limits != (poolLimits{slimImage, limits.memory, "64", "64", limits.cpus}) || memory != 256 || cpus != "1" {
		_, tag, _ := strings.Cut(limits.image, ":")
		name = fmt.Sprintf("pool-%s-%d-%s-%s-%s", tag, memory, limits.workspace, limits.temp, strings.ReplaceAll(cpus, ".", "-"))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if name == basePool() || h.pools[name] {
		return name, nil
	}
	var pool appsv1.Deployment
	if err := h.ask(http.MethodGet, deploymentsPath()+"/"+basePool(), nil, &pool); err != nil {
		return "", err
	}
	pool.ObjectMeta = metav1.ObjectMeta{Name: name, Labels: pool.Labels}
	label := map[string]string{"vivarium.dev/pool": name}
	pool.Spec.Selector.MatchLabels = merged(pool.Spec.Selector.MatchLabels, label)
	template := &pool.Spec.Template
	template.Labels = merged(template.Labels, label)
	container := &template.Spec.Containers[0]
	container.Image = limits.image
	container.Resources.Limits[corev1.ResourceMemory] = *resource.NewQuantity(int64(memory+64)<<20, resource.BinarySI)
	container.Resources.Limits[corev1.ResourceCPU] = resource.MustParse(cpus)
	for i, volume := range template.Spec.Volumes {
		shared := strconv.Itoa(memory / 4)
		if size, known := map[string]string{"workspace": limits.workspace, "tmp": limits.temp, "shm": shared}[volume.Name]; known {
			quantity := resource.MustParse(size + "Mi")
			template.Spec.Volumes[i].EmptyDir.SizeLimit = &quantity
		}
	}
	h.pools[name] = true
	return name, h.ask(http.MethodPost, deploymentsPath(), pool, nil)
}

func merged(parts ...map[string]string) map[string]string {
	all := make(map[string]string)
	for _, m := range parts {
		maps.Copy(all, m)
	}
	return all
}

// pods lists those with a label.
func (h *kubernetesHost) pods(selector string) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := h.ask(http.MethodGet, "/api/v1/namespaces/"+sandboxNamespace()+"/pods?labelSelector="+url.QueryEscape(selector), nil, &list)
	return list.Items, err
}

// list returns the sandboxes of pods with a label.
func (h *kubernetesHost) list(selector string) ([]sandbox, error) {
	pods, err := h.pods(selector)
	if err != nil || len(pods) == 0 {
		return nil, err
	}
	processes, err := firstProcesses()
	if err != nil {
		return nil, err
	}
	var all []sandbox
	for _, pod := range pods {
		if running, ok := processes.of(string(pod.UID)); ok && !hasEnded(&pod) {
			all = append(all, running)
		}
	}
	return all, nil
}

// hasEnded reports whether the container of a pod has ended once. The kubelet then starts it again, but it is no sandbox
// any more, and ends at once until somebody deletes the pod.
func hasEnded(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.RestartCount > 0 || s.State.Terminated != nil })
}

// podProcesses are the first processes of containers, by the names of their cgroups.
type podProcesses map[string]process

// firstProcesses finds those that run Python. Those of runs are in namespaces within.
func firstProcesses() (podProcesses, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := make(podProcesses)
	for _, entry := range entries {
		p, err := readProcess(entry.Name())
		if err != nil || !p.first || !p.python {
			continue
		}
		if groups, err := os.ReadFile("/proc/" + entry.Name() + "/cgroup"); err == nil {
			found[string(groups)] = p
		}
	}
	return found, nil
}

// of returns the sandbox of a pod, if its PID 1 runs.
func (p podProcesses) of(uid string) (found sandbox, ok bool) {
	for groups, process := range p {
		if strings.Contains(groups, uid) {
			return sandbox{process.name, true}, true
		}
	}
	return found, false
}

// runsOf selects the sandboxes for runs of a server. Sessions outlive it.
func runsOf(instance string) string {
	return "vivarium.dev/state=run,vivarium.dev/holder=" + instance
}

func (h *kubernetesHost) sandboxes(instance string) ([]sandbox, error) {
	return h.list(runsOf(instance))
}

func (h *kubernetesHost) session(id string) ([]sandbox, error) {
	return h.list("vivarium.dev/session=" + id)
}

func (h *kubernetesHost) endSession(id string) {
	selector := "vivarium.dev/session=" + id
	pods, _ := h.pods(selector)
	for _, pod := range pods {
		_ = h.ask(http.MethodDelete, "/api/v1/namespaces/"+sandboxNamespace()+"/pods/"+pod.Name+"?gracePeriodSeconds=1", nil, nil)
	}
	running, _ := h.list(selector)
	for _, s := range running {
		_ = h.kill(s.id) // the kubelet would wait for two seconds
	}
	poll(func() bool {
		left, err := h.pods(selector)
		return err == nil && len(left) == 0
	})
}

func leasesPath() string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + sandboxNamespace() + "/leases"
}

// bury deletes the Lease of a server that was killed. It would be over after 30 s.
func (h *kubernetesHost) bury(instance string) {
	_ = h.ask(http.MethodDelete, leasesPath()+"/vivarium-"+instance, nil, nil)
}

// traces lists the Lease of a server, and its pods, whatever runs in them.
func (h *kubernetesHost) traces(instance string) (left []string) {
	var leases coordinationv1.LeaseList
	if err := h.ask(http.MethodGet, leasesPath(), nil, &leases); err != nil {
		return []string{err.Error()}
	}
	for _, lease := range leases.Items {
		if strings.HasSuffix(lease.Name, instance) {
			left = append(left, "lease "+lease.Name)
		}
	}
	pods, err := h.pods(runsOf(instance))
	if err != nil {
		return []string{err.Error()}
	}
	for _, pod := range pods {
		if pod.DeletionTimestamp == nil { // the others are on their way
			left = append(left, "pod "+pod.Name)
		}
	}
	return left
}
