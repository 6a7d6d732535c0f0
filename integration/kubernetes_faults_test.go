package integration

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// faultyCluster makes what is wrong, for tests.
type faultyCluster struct {
	*kubernetesHost
	t *testing.T
}

func newFaultyCluster(t *testing.T) faultyCluster {
	t.Helper()
	h, ok := shared.host.(*kubernetesHost)
	if !ok {
		t.Fatal("this test needs -backend=kubernetes")
	}
	return faultyCluster{h, t}
}

// config writes the cluster's configuration with a change, and returns the variable that names it.
func (f faultyCluster) config(change func(*api.Cluster, *api.AuthInfo)) string {
	f.t.Helper()
	config, err := clientcmd.LoadFromFile(f.kubeconfig)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		for _, user := range config.AuthInfos {
			change(cluster, user)
		}
	}
	path := filepath.Join(f.t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		f.t.Fatal(err)
	}
	return "KUBECONFIG=" + path
}

// as is the configuration of an account in the namespace of the release.
func (f faultyCluster) as(account string) string {
	return f.config(func(_ *api.Cluster, user *api.AuthInfo) {
		user.Impersonate = "system:serviceaccount:" + release() + ":" + account
	})
}

// elsewhere is the configuration of a cluster that does not answer.
func (f faultyCluster) elsewhere() string {
	return f.config(func(c *api.Cluster, _ *api.AuthInfo) { c.Server = "https://127.0.0.1:1" })
}

// otherLink writes a server's certificate that sandboxes do not trust, and returns the variable that names it.
func (f faultyCluster) otherLink() string {
	f.t.Helper()
	ca, err := link.NewCA("other", time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	certificate, key, err := ca.Issue("other", nil, time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	folder := f.t.TempDir()
	for name, text := range map[string][]byte{link.CAFile: ca.Certificate, link.CertificateFile: certificate, link.KeyFile: key} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	return "KUBERNETES_LINK_DIR=" + folder
}

// make makes an object, which is removed when the test ends.
func (f faultyCluster) make(path, name string, object any) {
	f.t.Helper()
	if err := f.ask(http.MethodPost, path, object, nil); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { f.remove(path + "/" + name) })
}

func (f faultyCluster) remove(path string) {
	f.t.Helper()
	if err := f.ask(http.MethodDelete, path, map[string]string{"propagationPolicy": "Background"}, nil); err != nil {
		f.t.Error(err)
	}
}

// namespace makes one, and returns its name.
func (f faultyCluster) namespace(suffix string, labels map[string]string) string {
	f.t.Helper()
	name := release() + "-" + suffix
	f.make("/api/v1/namespaces", name, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	return name
}

// pool makes one of one blank like that of the chart, with a change, and returns the variables that name it.
func (f faultyCluster) pool(namespace, name string, change func(*corev1.PodSpec)) []string {
	f.t.Helper()
	var pool appsv1.Deployment
	if err := f.ask(http.MethodGet, deploymentsPath()+"/"+basePool(), nil, &pool); err != nil {
		f.t.Fatal(err)
	}
	one := int32(1)
	label := map[string]string{"vivarium.dev/pool": name}
	pool.ObjectMeta = metav1.ObjectMeta{Name: name, Labels: pool.Labels}
	pool.Spec.Replicas = &one
	maps.Copy(pool.Spec.Selector.MatchLabels, label)
	maps.Copy(pool.Spec.Template.Labels, label)
	pool.Spec.Template.Spec.ServiceAccountName, pool.Spec.Template.Spec.DeprecatedServiceAccount = "", "" // it is in the chart's namespace
	change(&pool.Spec.Template.Spec)
	f.make("/apis/apps/v1/namespaces/"+namespace+"/deployments", name, pool)
	return []string{"KUBERNETES_EXECUTOR_NAMESPACE=" + namespace, "KUBERNETES_POOL=" + name}
}

// What no server can work with keeps it from starting, with a sentence that names the object and what to do.
func TestKubernetesRefusesToStart(t *testing.T) {
	f := newFaultyCluster(t)
	for name, test := range map[string]struct {
		env  []string
		says []string
	}{
		"no cluster": {
			[]string{"KUBECONFIG=/nowhere", "HOME=/nowhere", "KUBERNETES_SERVICE_HOST="}, []string{"there is no cluster: set KUBECONFIG"},
		},
		"no answer": {
			[]string{f.elsewhere()},
			[]string{"Kubernetes does not answer at https://127.0.0.1:1: start the cluster, or set KUBECONFIG and KUBERNETES_CONTEXT"},
		},
		"another cluster's CA": {
			[]string{f.config(func(c *api.Cluster, _ *api.AuthInfo) {
				c.CertificateAuthority, c.CertificateAuthorityData = filepath.Join(f.link, link.CAFile), nil
			})},
			[]string{"has a certificate that this server does not trust: KUBECONFIG must have the CA of this cluster"},
		},
		"bad credentials": {
			[]string{f.config(func(_ *api.Cluster, user *api.AuthInfo) { *user = api.AuthInfo{Token: "stale"} })},
			[]string{"does not accept this server's credentials", "KUBECONFIG"},
		},
		"no rights": {
			[]string{f.as("stranger")},
			[]string{"does not allow this server to get deployments in the namespace \"" + sandboxNamespace() + "\"", "give its account a Role"},
		},
		"no pool": {
			[]string{"KUBERNETES_POOL=nowhere"},
			[]string{"there is no Deployment \"nowhere\" in the namespace \"" + sandboxNamespace() + "\"", "KUBERNETES_POOL"},
		},
		"no namespace": {
			[]string{"KUBERNETES_EXECUTOR_NAMESPACE=nowhere", "KUBERNETES_POOL=p"}, []string{`there is no Deployment "p" in the namespace "nowhere"`},
		},
		"too much memory": {
			f.pool(sandboxNamespace(), "small", func(*corev1.PodSpec) {}),
			[]string{"the template of Deployment \"small\"", "limits.memory of container \"sandbox\" is 320Mi: must be at least 364Mi (MEMORY_LIMIT_MB"},
		},
		"another certificate": {
			[]string{f.otherLink()}, []string{"VIVARIUM_LINK_CA of container \"sandbox\" does not fit this server's certificate", "unknown authority", "KUBERNETES_LINK_DIR"},
		},
		"no certificate": {[]string{"KUBERNETES_LINK_DIR=/nowhere"}, []string{`KUBERNETES_LINK_DIR is "/nowhere"`, "tls.crt"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := test.env
			if name == "too much memory" {
				env = append(env, "MEMORY_LIMIT_MB=300")
			}
			s, err := startProcess(env)
			if err == nil {
				t.Fatal("it starts", s.end())
			}
			// The log has quotation marks as JSON has them.
			wantSentence(t, strings.ReplaceAll(err.Error(), `\"`, `"`), test.says)
		})
	}
}

func wantSentence(t *testing.T, text string, parts []string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// Blanks may still come, so that a server without any starts. Its log and /health report why there are none.
func TestKubernetesReportsMissingBlanks(t *testing.T) {
	f := newFaultyCluster(t)
	full := f.namespace("full", nil)
	f.make("/api/v1/namespaces/"+full+"/resourcequotas", "none", corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	})
	strict := f.namespace("strict", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	free := f.namespace("free", nil)
	missing, unfinished := "vivarium/sandbox:missing", "vivarium/missing.json"
	for name, test := range map[string]struct {
		env  []string
		says []string
	}{
		"quota": {
			f.pool(full, "p", func(*corev1.PodSpec) {}),
			[]string{"a ResourceQuota of the namespace \"" + full + "\" is used up", "raise it, or lower MAX_SANDBOXES", "exceeded quota: none"},
		},
		"Pod Security": {
			f.pool(strict, "p", func(spec *corev1.PodSpec) {
				spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
			}),
			[]string{"the namespace \"" + strict + "\" rejects the pods of Deployment \"p\"", "label it with a Pod Security level", "seccompProfile"},
		},
		"image": {
			append(f.pool(free, "image", func(spec *corev1.PodSpec) { spec.Containers[0].Image = missing }), "KUBERNETES_EXECUTOR_IMAGE="+missing),
			[]string{"pod \"image-", "container sandbox: ErrImageNeverPull", missing, "the template must name images that the nodes can pull"},
		},
		"profile": {
			f.pool(free, "profile", func(spec *corev1.PodSpec) { spec.SecurityContext.SeccompProfile.LocalhostProfile = &unfinished }),
			[]string{"pod \"profile-", "CreateContainerError", unfinished, "the node must have what the template names, such as its seccomp profile"},
		},
		"no node": {
			f.pool(free, "node", func(spec *corev1.PodSpec) { spec.NodeSelector = map[string]string{"vivarium.dev/node": "nowhere"} }),
			[]string{"pod \"node-", "no node takes it", "didn't match Pod's node affinity/selector"},
		},
		"PID 1": {
			f.pool(free, "one", func(spec *corev1.PodSpec) {
				spec.Containers[0].Command = []string{"python3", "-c", "exit('no link here')"}
			}),
			[]string{"pod \"one-", "container sandbox: CrashLoopBackOff", "no link here"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := startProcess(append(test.env, "POOL_SIZE=0"))
			if err != nil {
				t.Fatal(err)
			}
			message := s.awaitMessage(func(text string) bool { return strings.Contains(text, test.says[len(test.says)-1]) })
			wantSentence(t, message, test.says)
			if !strings.Contains(s.logged(), "no sandbox is available yet") {
				t.Errorf("the log does not mention it: %s", s.logged())
			}
			if err := s.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// awaitMessage waits for a message in /health, and returns the last one.
func (s *server) awaitMessage(is func(string) bool) (last string) {
	poll(func() bool {
		resp, err := http.Get(s.url + "/health")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		var health struct{ Message string }
		err = json.NewDecoder(resp.Body).Decode(&health)
		last = health.Message
		return err == nil && is(last)
	})
	return last
}

// What goes away under a server is in /health, and the server is well when it is back.
func TestKubernetesReportsLosses(t *testing.T) {
	f := newFaultyCluster(t)
	pool := f.pool(sandboxNamespace(), "losses", func(*corev1.PodSpec) {})
	bindings := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + sandboxNamespace() + "/rolebindings"
	binding := rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "guest"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: release() + "-vivarium"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "guest", Namespace: release()}},
	}
	f.make(bindings, "guest", binding)
	s, err := start(append(pool, f.as("guest"), "POOL_SIZE=0"))
	if err != nil {
		t.Fatal(err)
	}
	await := func(parts ...string) {
		t.Helper()
		wantSentence(t, s.awaitMessage(func(text string) bool { return strings.Contains(text, parts[0]) }), parts)
	}
	f.remove(bindings + "/guest")
	await("does not allow this server to", "in the namespace \""+sandboxNamespace()+"\": give its account a Role")
	if err := f.ask(http.MethodPost, bindings, binding, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.awaitHealth(); err != nil {
		t.Fatal(err)
	}
	f.remove(deploymentsPath() + "/losses")
	await("there is no Deployment \"losses\"", "KUBERNETES_POOL")
	if err := s.end(); err != nil {
		t.Error(err)
	}
}
