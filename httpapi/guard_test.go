package httpapi_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

func TestGuardHosts(t *testing.T) {
	for host, own := range map[string]bool{
		"localhost": true, "localhost:8000": true, "LOCALHOST:8000": true, "localhost.": true, "app.localhost": true,
		"127.0.0.1": true, "127.0.0.1:8000": true, "10.1.2.3:80": true, "0.0.0.0:8000": true, "203.0.113.7": true,
		"[::1]": true, "[::1]:8000": true, "[fe80::1%25eth0]:80": true,
		"vivarium": true, "vivarium:8000": true, "vivarium.ns.svc": true, "vivarium.ns.svc.cluster.local:80": true,
		"host.docker.internal:8000": true, "box.local": true, "nas.home.arpa": true, "my_box": true, "[fe80::1%25eth0.100]": true,
		"evil.com": false, "evil.com:8000": false, "EVIL.COM": false, "evil.com.": false, "localhost.evil.com": false,
		"127.0.0.1.evil.com": false, "127.0.0.1.nip.io:8000": false, "evil.com:80:80": false, "local.evil.com": false,
		"evillocal.com": false, "notlocalhost.com": false, "xlocal.example": false, "127.0.0.1 evil.com": false, "0x7f.1": false,
		"": false, ":8000": false, "127.0.0.1:8000.evil.com": false, "localhost:x": false, "localhost:": false, "localhost..": false, ".localhost": false,
		"[::1%25evil.com]": false, "[::1%25evil.com]:8000": false, "::1": false, "[localhost]": false, "[127.0.0.1]": false, "[::1": false, "::1]": false,
		"[::1]x": false, "user@localhost": false, "localhost/x": false, "evil\u3002com": false, "x y": false, "evil.com@x.local": false,
	} {
		for _, route := range []string{"GET /health", "POST /v1/execute", "GET /docs", "GET /nope", "POST /mounted"} {
			method, path, _ := strings.Cut(route, " ")
			a, called := sendGuarded(t, method, path, func(r *http.Request) { r.Host = host })
			checkGuard(t, "Host "+host+" "+route, a, called, own)
		}
	}
}

func TestGuardOrigins(t *testing.T) {
	for origin, own := range map[string]bool{
		"http://localhost:8000": true, "http://LOCALHOST:8000": true,
		"http://localhost": false, "http://localhost:9000": false, "https://localhost:8000": false, "http://127.0.0.1:8000": false,
		"null": false, "http://evil.com": false, "http://localhost:8000.evil.com": false, "http://evil.com#localhost:8000": false,
		"http://evil.com/http://localhost:8000": false, "localhost:8000": false, "//localhost:8000": false, "file://": false,
		"chrome-extension://abcdef": false, "http://localhost:8000@evil.com": false, "%": false, "http://[": false,
		"http://user@localhost:8000": false, "http://localhost:8000/": false, "http://localhost:8000/x": false, "http://localhost:8000?x": false,
		"http://localhost:8000#x": false, "http:localhost:8000": false, "http://localhost:8000 http://evil.com": false,
	} {
		for _, route := range []string{"GET /health", "POST /v1/execute", "POST /mounted", "GET /mounted"} {
			method, path, _ := strings.Cut(route, " ")
			a, called := sendGuarded(t, method, path, func(r *http.Request) { r.Header.Set("Origin", origin) })
			checkGuard(t, "Origin "+origin+" "+route, a, called, own)
		}
	}
}

// A request with several origins is refused.
func TestGuardSeveralOrigins(t *testing.T) {
	for _, second := range []string{"http://evil.com", "http://localhost:8000", ""} {
		for _, first := range []string{"http://localhost:8000", ""} {
			a, called := sendGuarded(t, http.MethodPost, "/v1/execute", func(r *http.Request) { r.Header["Origin"] = []string{first, second} })
			checkGuard(t, first+" and "+second, a, called, false)
		}
	}
}

// Old clients, such as the health check of a load balancer, send no Host.
func TestGuardWithoutHost(t *testing.T) {
	for minor, own := range map[int]bool{0: true, 1: false} {
		a, called := sendGuarded(t, http.MethodGet, "/health", func(r *http.Request) { r.Host, r.ProtoMinor = "", minor })
		checkGuard(t, "HTTP/1."+strconv.Itoa(minor), a, called, own)
	}
}

// OPTIONS * passes the guard as other requests do.
func TestGuardOptionsOfServer(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config = httpapi.NewServer(options(validates))
	server.Start()
	defer server.Close()
	for host, status := range map[string]int{"evil.com": http.StatusForbidden, "localhost": http.StatusNotFound} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Opaque, r.Host = "*", host
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != status || !strings.HasPrefix(string(text), `{"detail":`) {
			t.Errorf("%s: %s %s, %v", host, resp.Status, text, err)
		}
	}
}

func TestGuardOriginBehindTLS(t *testing.T) {
	for origin, own := range map[string]bool{"https://localhost:8000": true, "http://localhost:8000": false} {
		a, called := sendGuarded(t, http.MethodPost, "/v1/execute", func(r *http.Request) {
			r.TLS = new(tls.ConnectionState)
			r.Header.Set("Origin", origin)
		})
		checkGuard(t, origin, a, called, own)
	}
}

// sendGuarded sends a request and reports whether it reached an executor or a door behind
// the guard.
func sendGuarded(t *testing.T, method, path string, change func(r *http.Request)) (a answer, called bool) {
	t.Helper()
	opts := options(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		called = true
		return validates(ctx, req)
	})
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true })}
	body := ""
	if method == http.MethodPost {
		body = `{"code": ""}`
	}
	r := request(method, path, body)
	change(r)
	return serve(httpapi.NewHandler(opts), r), called
}

func checkGuard(t *testing.T, what string, a answer, called, own bool) {
	t.Helper()
	if refused := a.status == http.StatusForbidden; refused == own || refused && called {
		t.Errorf("%s: %d %s (the door behind was called: %v)", what, a.status, a.body, called)
	}
	if !own && !strings.HasPrefix(a.body, `{"detail":"Forbidden: `) {
		t.Errorf("%s: the answer is %s", what, a.body)
	}
	for reason, setting := range map[string]string{"the Host": "ALLOWED_HOSTS", "the origin": "ALLOWED_ORIGINS"} {
		if !own && strings.Contains(a.body, reason) != strings.Contains(a.body, "("+setting+" names ") {
			t.Errorf("%s: the answer is %s", what, a.body)
		}
	}
	if a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%s: other origins may read the answer", what)
	}
}

// guarded returns a server with an allowed host, allowed origins, and a door that sets
// CORS headers itself.
func guarded() http.Handler {
	opts := options(validates)
	opts.AllowedHosts = []string{"sandbox.example.com"}
	opts.AllowedOrigins = []string{"https://app.example.com", "https://app.example.com:8443"}
	opts.Mount = map[string]http.Handler{"/mounted": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		switch r.URL.RawQuery {
		case "flush":
			w.(http.Flusher).Flush()
		case "control":
			_ = http.NewResponseController(w).Flush()
		case "status":
			w.WriteHeader(http.StatusAccepted)
		}
		_, _ = io.WriteString(w, "x")
	})}
	return httpapi.NewHandler(opts)
}

func TestAllowedHosts(t *testing.T) {
	for host, allowed := range map[string]bool{
		"sandbox.example.com": true, "sandbox.example.com:8000": true, "SANDBOX.example.com.": true, "localhost": true,
		"example.com": false, "x.sandbox.example.com": false, "sandbox.example.com.evil.com": false,
	} {
		r := request(http.MethodGet, "/health", "")
		r.Host = host
		if a := serve(guarded(), r); (a.status == http.StatusOK) != allowed {
			t.Errorf("%s: %d %s", host, a.status, a.body)
		}
	}
}

// Pages of allowed origins may read answers, and no others, even if a door sets other
// headers.
func TestAllowedOrigins(t *testing.T) {
	for origin, want := range map[string]struct {
		status int
		allow  string
	}{
		"":                             {http.StatusOK, ""},
		"http://localhost:8000":        {http.StatusOK, ""},
		"https://app.example.com":      {http.StatusOK, "https://app.example.com"},
		"https://app.example.com:8443": {http.StatusOK, "https://app.example.com:8443"},
		"http://app.example.com":       {http.StatusForbidden, ""},
		"https://app.example.com:444":  {http.StatusForbidden, ""},
		"https://x.app.example.com":    {http.StatusForbidden, ""},
		"https://evil.com":             {http.StatusForbidden, ""},
		"null":                         {http.StatusForbidden, ""},
		"*":                            {http.StatusForbidden, ""},
	} {
		for _, path := range []string{"/health", "/mounted", "/mounted?flush", "/mounted?control", "/mounted?status"} {
			r := request(http.MethodGet, path, "")
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
			a := serve(guarded(), r)
			if status := a.status; status != want.status && (status != http.StatusAccepted || want.status != http.StatusOK) {
				t.Errorf("%q %s: %d %s", origin, path, a.status, a.body)
			}
			if got := a.header.Values("Access-Control-Allow-Origin"); strings.Join(got, ",") != want.allow {
				t.Errorf("%q %s: %q may read it", origin, path, got)
			}
			if exposed := a.header.Get("Access-Control-Expose-Headers"); strings.Contains(exposed, "Mcp-Session-Id") != (want.allow != "") {
				t.Errorf("%q %s: exposed are %q", origin, path, exposed)
			}
			if a.header.Get("Access-Control-Allow-Credentials") != "" || a.header.Get("Vary") != "Origin" {
				t.Errorf("%q %s: %v", origin, path, a.header)
			}
		}
	}
}

func TestPreflight(t *testing.T) {
	ask := func(origin, path string) answer {
		r := request(http.MethodOptions, path, "")
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", http.MethodPost)
		r.Header.Set("Access-Control-Request-Headers", "authorization,content-type,mcp-session-id")
		return serve(guarded(), r)
	}
	for _, path := range []string{"/v1/execute", "/mounted", "/v1/files/x"} {
		a := ask("https://app.example.com", path)
		if a.status != http.StatusNoContent || a.body != "" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin":  "https://app.example.com",
			"Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
			"Access-Control-Allow-Headers": "authorization,content-type,mcp-session-id",
			"Access-Control-Max-Age":       "600",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if a := ask("https://evil.com", path); a.status != http.StatusForbidden || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
}

// A body that is not declared as JSON, which a page can send without a preflight request,
// is refused on every door.
func TestJSONIsDeclared(t *testing.T) {
	for kind, status := range map[string]int{
		"application/json": http.StatusOK, "application/json; charset=utf-8": http.StatusOK, "application/mcp+json": http.StatusOK,
		"": http.StatusUnsupportedMediaType, "text/plain": http.StatusUnsupportedMediaType, "json": http.StatusUnsupportedMediaType,
		"application/x-www-form-urlencoded": http.StatusUnsupportedMediaType, "text/plain; application/json": http.StatusUnsupportedMediaType,
	} {
		r := request(http.MethodPost, "/mounted", `{}`)
		r.Header.Set("Content-Type", kind)
		if a := serve(guarded(), r); a.status != status {
			t.Errorf("%q: %d %s", kind, a.status, a.body)
		}
	}
}
