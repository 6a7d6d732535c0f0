package docker_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

// created is a part of the request for a container.
type created struct {
	Hostname   string
	Env        []string
	Labels     map[string]string
	HostConfig struct {
		Dns, DnsSearch, DnsOptions, ExtraHosts []string //nolint:revive // as the engine writes them
		CpusetCpus, CpusetMems                 string
		CPUShares                              int64 `json:"CpuShares"`
		Tmpfs                                  map[string]string
		Ulimits                                []docker.Ulimit
		CapDrop, SecurityOpt                   []string
		ReadonlyRootfs                         bool
	}
}

// startWith returns the request for a container with additions.
func startWith(t *testing.T, extra docker.Extra) created {
	t.Helper()
	e := newEngine(t)
	bodies := make(chan []byte, 1)
	e.handle(create, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies <- body
		fail(http.StatusTeapot, "enough")(w, r)
	})
	b := e.backend(docker.Options{Environment: []string{"LANG=C.UTF-8", "TZ=UTC"}, Extra: extra})
	if _, err := b.Start(t.Context(), execution.Spec{Image: "sha256:abc", Settings: execution.Settings{Network: "none"}}); err == nil {
		t.Fatal("no error")
	}
	var asked created
	if err := json.Unmarshal(<-bodies, &asked); err != nil {
		t.Fatal(err)
	}
	return asked
}

// Additions reach the engine and leave every restriction as it is.
func TestExtra(t *testing.T) {
	plain := startWith(t, docker.Extra{})
	got := startWith(t, docker.Extra{
		Environment: []string{"TZ=Asia/Tokyo", "HTTP_PROXY=http://proxy:3128", "TZ2=x"}, Labels: []string{"team=data=1", "bare"},
		DNS: []string{"10.0.0.2"}, DNSSearch: []string{"x.example"}, DNSOptions: []string{"ndots:1"}, Hosts: []string{"a:10.0.0.3"},
		Hostname: "box", SharedMemoryBytes: 1 << 20, CPUs: "0-1", MemoryNodes: "0", CPUShares: 512, Ulimits: []docker.Ulimit{{Name: "fsize", Soft: 1, Hard: 2}},
	})
	if got.Labels["team"] != "data=1" || got.Labels["vivarium.pool"] != "sha256:abc" {
		t.Errorf("the labels are %v", got.Labels)
	}
	if value, ok := got.Labels["bare"]; !ok || value != "" {
		t.Errorf("the labels are %v", got.Labels)
	}
	if !slices.Contains(got.Env, "LANG=C.UTF-8") || slices.Contains(got.Env, "TZ=UTC") || !slices.Contains(got.Env, "TZ=Asia/Tokyo") ||
		!slices.Contains(got.Env, "HTTP_PROXY=http://proxy:3128") || !slices.Contains(got.Env, "TZ2=x") {
		t.Errorf("the environment is %q", got.Env)
	}
	want := plain
	want.Hostname, want.Env, want.Labels = "box", got.Env, got.Labels
	host := &want.HostConfig
	host.Dns, host.DnsSearch, host.DnsOptions, host.ExtraHosts = []string{"10.0.0.2"}, []string{"x.example"}, []string{"ndots:1"},
		[]string{"sandbox:127.0.0.1", "box:127.0.0.1", "a:10.0.0.3"}
	host.CpusetCpus, host.CpusetMems, host.CPUShares = "0-1", "0", 512
	host.Ulimits = append(slices.Clone(host.Ulimits), docker.Ulimit{Name: "fsize", Soft: 1, Hard: 2})
	for _, path := range []string{"/dev/shm", "/tmp", "/workspace"} { // each container has another user
		host.Tmpfs[path] = got.HostConfig.Tmpfs[path]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if shm := got.HostConfig.Tmpfs["/dev/shm"]; !strings.Contains(shm, ",size=1048576,") {
		t.Errorf("/dev/shm is %s", shm)
	}
}
