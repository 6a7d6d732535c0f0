package kubernetes_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/kubernetes"
	"github.com/vivarium-sandbox/vivarium/execution/link"
)

// dial connects to the PID 1 of the pod that has an address, which reads everything.
func (c *cluster) dial(_ context.Context, address, pin string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	host, _, _ := net.SplitHostPort(address)
	for name, o := range c.objects["pods"] {
		if ip(o) != host {
			continue
		}
		if c.deaf[name] != nil {
			return nil, c.deaf[name]
		}
		if pinOf(name) != pin {
			return nil, fmt.Errorf("%w at %s", link.ErrPin, address)
		}
		ours, theirs := net.Pipe()
		go c.becomeSupervisor(name, theirs)
		return ours, nil
	}
	return nil, link.ErrRefused
}

// becomeSupervisor takes the frames of a boot, and then answers what it reads.
func (c *cluster) becomeSupervisor(name string, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		var header [5]byte
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(header[1:]))
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		if header[0] == 'B' {
			boot := name
			for line := range strings.Lines(string(payload)) {
				line = strings.TrimSpace(line)
				if strings.HasPrefix(line, "generation=") || strings.HasPrefix(line, "filter=") && line != "filter=" {
					boot += " " + line
				}
			}
			c.mu.Lock()
			c.boots = append(c.boots, boot)
			c.mu.Unlock()
		}
		if header[0] == 'G' {
			_, _ = conn.Write([]byte("ready"))
		}
	}
}

// options returns those of a backend on the cluster.
func (c *cluster) options() kubernetes.Options {
	c.t.Helper()
	config := filepath.Join(c.t.TempDir(), "config")
	c.writeConfig(config, c.server.URL, "")
	return kubernetes.Options{
		Kubeconfig: config, Namespace: "boxes", Pool: "blanks", Port: 7443, Settings: settings(), Dial: c.dial,
		End: func(_ context.Context, address, _ string) error {
			c.ended <- address
			return nil
		},
		Boot: func(execution.Spec, link.Facts) (link.Boot, error) {
			return link.Boot{Texts: []string{"supervisor"}}, nil
		},
		Peer: "10.0.0.1:8001",
	}
}

func (c *cluster) writeConfig(path, address, more string) {
	c.t.Helper()
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: here\nclusters:\n- {name: c, cluster: {server: %q%s}}\n"+
		"users:\n- {name: u, user: {token: t}}\ncontexts:\n- {name: here, context: {cluster: c, user: u}}\n", address, more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// backend returns a backend on the cluster.
func (c *cluster) backend(change ...func(*kubernetes.Options)) *kubernetes.Backend {
	c.t.Helper()
	opts := c.options()
	for _, f := range change {
		f(&opts)
	}
	b, err := kubernetes.New(opts)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := b.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return b
}

func settings() execution.Settings {
	const mb = 1 << 20
	return execution.Settings{
		Isolation: execution.IsolationRun, Network: "none", MemoryBytes: 256 * mb, CPUs: 1, Processes: 64, WorkspaceBytes: 128 * mb, TempBytes: 64 * mb,
	}
}

// spec is what tests start.
func spec() execution.Spec { return execution.Spec{Image: "pool/h1", Settings: settings()} }

// serveReviews answers what is in no namespace: the version, and the rights of the account. It may watch
// what its rules do not have.
func (c *cluster) serveReviews(mux *http.ServeMux) {
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, object{"gitVersion": "v1.34.0"})
	})
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "application/json" {
			fail(w, http.StatusNotAcceptable, "NotAcceptable", "the answer would be something else")
			return
		}
		reply(w, http.StatusCreated, object{"status": object{"resourceRules": c.rules}})
	})
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		attributes := parse(body)["spec"].(object)["resourceAttributes"].(object)
		reply(w, http.StatusCreated, object{"status": object{"allowed": attributes["verb"] == "watch"}})
	})
}
