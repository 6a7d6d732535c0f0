package docker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dockerclient "github.com/docker/docker/client"

	"github.com/vivarium-sandbox/vivarium/execution/docker"
)

func writeFile(t *testing.T, content string, path ...string) {
	t.Helper()
	full := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// contextID returns the folder in which the CLI stores a context.
func contextID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func writeContext(t *testing.T, configDir, name, meta string) {
	t.Helper()
	writeFile(t, meta, configDir, "contexts", "meta", contextID(name), "meta.json")
}

func contextFor(host string) string {
	return fmt.Sprintf(`{"Name": "c", "Metadata": {}, "Endpoints": {"docker": {"Host": %q, "SkipTLSVerify": false}}}`, host)
}

// The engine's address is found as the Docker CLI finds it.
func TestHost(t *testing.T) {
	standard := dockerclient.DefaultDockerHost
	for name, test := range map[string]struct {
		environment string // DOCKER_HOST
		opts        docker.Options
		config      string // config.json; empty: none
		want        string
	}{
		"nothing":                        {"", docker.Options{}, "", standard},
		"no folder":                      {"", docker.Options{ConfigDir: "/does/not/exist"}, "", standard},
		"DOCKER_HOST":                    {"tcp://one:1", docker.Options{}, "", "tcp://one:1"},
		"DOCKER_HOST before a context":   {"tcp://one:1", docker.Options{Context: "blue"}, "", "tcp://one:1"},
		"DOCKER_HOST before the current": {"tcp://one:1", docker.Options{}, `{"currentContext": "blue"}`, "tcp://one:1"},
		"a context":                      {"", docker.Options{Context: "blue"}, "", "tcp://blue:2375"},
		"the current context":            {"", docker.Options{}, `{"auths": {}, "currentContext": "blue"}`, "tcp://blue:2375"},
		"a context before the current":   {"", docker.Options{Context: "green"}, `{"currentContext": "blue"}`, "unix:///green.sock"},
		"no current context":             {"", docker.Options{}, `{"auths": {}}`, standard},
		"the default context":            {"", docker.Options{Context: "default"}, `{"currentContext": "blue"}`, standard},
		"the default as current":         {"", docker.Options{}, `{"currentContext": "default"}`, standard},
		"a strange name":                 {"", docker.Options{Context: "../blue"}, "", "tcp://strange:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DOCKER_HOST", test.environment)
			opts := test.opts
			opts.Host = test.environment
			if opts.ConfigDir == "" {
				opts.ConfigDir = t.TempDir()
			}
			if test.opts.ConfigDir == "" {
				writeContext(t, opts.ConfigDir, "blue", contextFor("tcp://blue:2375"))
				writeContext(t, opts.ConfigDir, "green", contextFor("unix:///green.sock"))
				writeContext(t, opts.ConfigDir, "../blue", contextFor("tcp://strange:1"))
			}
			if test.config != "" {
				writeFile(t, test.config, opts.ConfigDir, "config.json")
			}
			b, err := docker.New(opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Host(); got != test.want {
				t.Errorf("the engine is at %s, not %s", got, test.want)
			}
		})
	}
}

func TestHostFails(t *testing.T) {
	for name, test := range map[string]struct {
		context, config, meta string
		want                  []string
	}{
		"no such context":          {"red", "", "", []string{`"red"`, "no such context"}},
		"no such current one":      {"", `{"currentContext": "red"}`, "", []string{`"red"`, "no such context"}},
		"a broken config":          {"", `{`, "", []string{"config.json"}},
		"a broken context":         {"blue", "", `{`, []string{`"blue"`, "meta.json"}},
		"no Docker host":           {"blue", "", `{"Endpoints": {"kubernetes": {"Host": "x"}}}`, []string{`"blue"`, "names no Docker host"}},
		"no host":                  {"blue", "", `{"Endpoints": {"docker": {}}}`, []string{`"blue"`, "names no Docker host"}},
		"a host that is not a URL": {"blue", "", contextFor("blue"), []string{"blue"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if test.config != "" {
				writeFile(t, test.config, dir, "config.json")
			}
			if test.meta != "" {
				writeContext(t, dir, "blue", test.meta)
			}
			_, err := docker.New(docker.Options{Context: test.context, ConfigDir: dir})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in the error: %v", want, err)
				}
			}
		})
	}
}

// A context's certificates are used on both sides.
func TestContextWithTLS(t *testing.T) {
	known := make(chan bool, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case known <- len(r.TLS.PeerCertificates) == 1:
		default:
		}
		w.Header().Set("Api-Version", "1.41")
		_, _ = w.Write([]byte("{}"))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()

	dir := t.TempDir()
	writeContext(t, dir, "secure", contextFor("tcp://"+server.Listener.Addr().String()))
	certificates := filepath.Join(dir, "contexts", "tls", contextID("secure"), "docker")
	writeFile(t, pemOf("CERTIFICATE", server.Certificate().Raw), certificates, "ca.pem")
	certificate, key := selfSigned(t)
	writeFile(t, pemOf("CERTIFICATE", certificate), certificates, "cert.pem")
	writeFile(t, pemOf("EC PRIVATE KEY", key), certificates, "key.pem")

	b, err := docker.New(docker.Options{ConfigDir: dir, Context: "secure"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if err := b.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !<-known {
		t.Error("the client showed no certificate")
	}
}

func pemOf(kind string, data []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
}

func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err = x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	key, err = x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}
