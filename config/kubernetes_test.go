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
		"KUBERNETES_PROVIDER":                    {[]string{"deployment", "agent-sandbox"}, []string{"statefulset"}},
		"PEER_PORT":                              {[]string{"0", "65535"}, []string{"-1", "65536"}},
		"POD_IP":                                 {[]string{"10.0.0.1", "fd00::1"}, []string{"pod", "10.0.0.1:80"}},
		"SESSION_LINK_IDLE_SEC":                  {[]string{"1"}, []string{"0"}},
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

// Only servers in pods that may call each other have an address for that.
func TestPeerAddress(t *testing.T) {
	for want, settings := range map[string]map[string]string{
		"10.0.0.1:8001":  {"EXECUTOR_BACKEND": "kubernetes", "POD_IP": "10.0.0.1"},
		"[fd00::1]:9000": {"EXECUTOR_BACKEND": "kubernetes", "POD_IP": "fd00::1", "PEER_PORT": "9000"},
	} {
		if c, err := load(t, settings); err != nil || c.PeerAddress() != want {
			t.Errorf("%q is not %q: %v", c.PeerAddress(), want, err)
		}
	}
	for _, settings := range []map[string]string{
		{"EXECUTOR_BACKEND": "kubernetes"},
		{"EXECUTOR_BACKEND": "kubernetes", "POD_IP": "10.0.0.1", "PEER_PORT": "0"},
		{"EXECUTOR_BACKEND": "docker", "POD_IP": "10.0.0.1"},
	} {
		if c, err := load(t, settings); err != nil || c.PeerAddress() != "" {
			t.Errorf("%v: %q, %v", settings, c.PeerAddress(), err)
		}
	}
}
