package config_test

import (
	"fmt"
	"strings"
	"testing"
)

// The Kubernetes backend rejects settings of an engine, and has some of its own.
func TestKubernetesSettings(t *testing.T) {
	for name, test := range map[string]struct{ good, bad []string }{
		"PYTHON_EXECUTOR_DOCKER_IMAGE":           {nil, []string{"python:3"}},
		"PYTHON_EXECUTOR_DOCKER_RUNTIME":         {nil, []string{"runsc"}},
		"PYTHON_EXECUTOR_DOCKER_NETWORK":         {[]string{"none", "pod"}, []string{"bridge"}},
		"PYTHON_EXECUTOR_DOCKER_RUN_ARGS":        {[]string{"--privileged"}, nil}, // without effect
		"KUBERNETES_EXECUTOR_IMAGE":              {[]string{"sandbox:1", "registry.example.com/sandbox@sha256:" + strings.Repeat("0", 64)}, []string{"Sandbox"}},
		"KUBERNETES_LINK_PORT":                   {[]string{"1"}, []string{"0", "65536", "x"}},
		"KUBERNETES_EXECUTOR_SERVICE_ACCOUNT":    {[]string{"code-runner"}, nil},
		"KUBERNETES_EXECUTOR_NET_ADMIN_LOCKDOWN": {[]string{"true"}, nil},
		"MAX_SESSIONS":                           {[]string{"100000"}, []string{"1000001"}},
	} {
		for _, value := range test.good {
			if _, err := load(t, map[string]string{"EXECUTOR_BACKEND": "kubernetes", name: value}); err != nil {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
		for _, value := range test.bad {
			want := fmt.Sprintf("%s is %q: must ", name, value)
			if _, err := load(t, map[string]string{"EXECUTOR_BACKEND": "kubernetes", name: value}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in %v", want, err)
			}
		}
	}
	c, err := load(t, map[string]string{"EXECUTOR_BACKEND": "kubernetes"})
	if err != nil || c.KubernetesPool != "vivarium-sandboxes" || c.KubernetesLinkDir != "/etc/vivarium/link" || c.KubernetesLinkPort != 7443 {
		t.Errorf("the defaults are %+v, %v", c, err)
	}
}
