package integration

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
)

const (
	annasKey = "annas-key-0123456789"
	bensKey  = "bens-key-0123456789"
)

// bearing asks a server with a key, or with none.
func (s *server) bearing(t *testing.T, key, method, path, body string) (status int, header http.Header, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

// runAs runs a program with a key.
func (s *server) runAs(t *testing.T, key, code string) *answer {
	t.Helper()
	body, _ := json.Marshal(request{"code": code})
	status, _, text := s.bearing(t, key, http.MethodPost, "/v1/execute", string(body))
	a := new(answer)
	if err := json.Unmarshal([]byte(text), a); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s (%v)", status, text, err)
	}
	return a
}

// Every door asks for a key; with one, everything works.
func TestKeysOnEveryDoor(t *testing.T) {
	s := startServer(t, "API_KEYS="+annasKey+","+bensKey, "POOL_SIZE=1")
	for route, open := range map[string]bool{
		"POST /v1/execute": false, "POST /v1/execute/stream": false, "GET /v1/files": false, "POST /v1/sessions": false, "POST /mcp": false,
		"GET /mcp": false, "GET /sse": false, "POST /message?sessionId=x": false, "GET /nope": false,
		"GET /health": true, "GET /docs": true, "GET /redoc": true, "GET /openapi.json": true,
	} {
		method, path, _ := strings.Cut(route, " ")
		for _, key := range []string{"", "wrong-key-0123456789"} {
			status, header, text := s.bearing(t, key, method, path, "")
			if open != (status == http.StatusOK) || !open && (status != http.StatusUnauthorized ||
				!strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer ") || !strings.HasPrefix(text, `{"detail":"`)) {
				t.Errorf("%s with the key %q: %d %v %.200s", route, key, status, header, text)
			}
		}
	}
	if a := s.runAs(t, annasKey, "print(6*7)"); a.Stdout != "42\n" {
		t.Errorf("%+v", a)
	}
	bearer := map[string]string{"Authorization": "Bearer " + annasKey}
	streamable, err := mcpclient.NewStreamableHttpClient(s.url+"/mcp", transport.WithHTTPHeaders(bearer))
	if text, failed := call(t, connect(t, streamable, err), map[string]any{"code": "print(6*7)"}); text != "42\n" || failed {
		t.Errorf("/mcp: %q", text)
	}
	sse, err := mcpclient.NewSSEMCPClient(s.url+"/sse", mcpclient.WithHeaders(bearer))
	if text, failed := call(t, connect(t, sse, err), map[string]any{"code": "print(6*7)"}); text != "42\n" || failed {
		t.Errorf("/sse: %q", text)
	}
	if log := s.logged(); strings.Contains(log, annasKey) || strings.Contains(log, bensKey) {
		t.Error("a key is in the log")
	}
}

// What is made with one key does not exist for another, also after a restart.
func TestOwnership(t *testing.T) {
	env := []string{"API_KEYS=" + annasKey + "," + bensKey, "POOL_SIZE=1", "FILE_STORAGE_DIR=" + folderOf(t, *userFlag)}
	first := startServer(t, env...)
	file := first.runAs(t, annasKey, "open('a.txt', 'w').write('secret'); None").Files[0].FileID
	var created struct {
		SessionID string `json:"session_id"`
	}
	_, _, text := first.bearing(t, annasKey, http.MethodPost, "/v1/sessions", "")
	if err := json.Unmarshal([]byte(text), &created); err != nil || created.SessionID == "" {
		t.Fatalf("%s %v", text, err)
	}
	t.Cleanup(func() { shared.host.endSession(created.SessionID) })
	checkOwnership(t, first, file, created.SessionID)
	first.endWithSessions(t)
	checkOwnership(t, startServer(t, env...), file, created.SessionID)
	open := startServer(t, env[1:]...) // nobody is asked, and nothing of others is seen
	for _, path := range []string{"/v1/files/" + file, "/v1/sessions/" + created.SessionID + "/files/a"} {
		if status, _, text := open.bearing(t, "", http.MethodGet, path, ""); status != http.StatusNotFound {
			t.Errorf("without keys: %s: %d %s", path, status, text)
		}
	}
}

// endWithSessions ends a server while sessions of its own go on.
func (s *server) endWithSessions(t *testing.T) {
	t.Helper()
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(); err != nil {
		t.Fatal(err)
	}
}

func checkOwnership(t *testing.T, s *server, file, session string) {
	t.Helper()
	unknown := strings.Repeat("0", 32)
	for _, route := range []struct{ method, path, body string }{
		{"GET", "/v1/files/" + file, ""},
		{"DELETE", "/v1/files/" + file, ""},
		{"POST", "/v1/execute", `{"code": "1", "files": [{"path": "a", "file_id": "` + file + `"}]}`},
		{"POST", "/v1/sessions", `{"files": [{"path": "a", "file_id": "` + file + `"}]}`},
		{"POST", "/v1/sessions/" + session + "/bash", `{"cmd": "ls"}`},
		{"POST", "/v1/sessions/" + session + "/execute", `{"code": "1"}`},
		{"POST", "/v1/sessions/" + session + "/execute/stream", `{"code": "1"}`},
		{"GET", "/v1/sessions/" + session + "/files/a", ""},
		{"PUT", "/v1/sessions/" + session + "/files/a", "x"},
		{"DELETE", "/v1/sessions/" + session, ""},
	} {
		none := strings.NewReplacer(file, unknown, session, unknown)
		status, _, text := s.bearing(t, bensKey, route.method, route.path, route.body)
		wantStatus, _, want := s.bearing(t, bensKey, route.method, none.Replace(route.path), none.Replace(route.body))
		if status != http.StatusNotFound || status != wantStatus || none.Replace(text) != want {
			t.Errorf("%s %s: %d %s; an unknown id: %d %s", route.method, route.path, status, text, wantStatus, want)
		}
	}
	for path, id := range map[string]string{"/v1/files": file, "/v1/sessions": session} {
		if _, _, text := s.bearing(t, bensKey, http.MethodGet, path, ""); strings.Contains(text, id) {
			t.Errorf("%s tells others: %s", path, text)
		}
		if _, _, text := s.bearing(t, annasKey, http.MethodGet, path, ""); !strings.Contains(text, id) {
			t.Errorf("%s does not tell its owner: %s", path, text)
		}
	}
	if _, _, text := s.bearing(t, annasKey, http.MethodGet, "/v1/files/"+file, ""); text != "secret" {
		t.Errorf("the owner's file is %s", text)
	}
	if status, _, text := s.bearing(t, annasKey, http.MethodPost, "/v1/sessions/"+session+"/bash", `{"cmd": "echo mine"}`); status != http.StatusOK {
		t.Errorf("the owner's call: %d %s", status, text)
	}
}

// A container never serves two keys; one key's is used again.
func TestContainersOfKeys(t *testing.T) {
	s := startServer(t, "API_KEYS="+annasKey+","+bensKey, "POOL_SIZE=1", "MAX_SANDBOXES=1")
	// A mount's device number, and when PID 1 was started.
	const which = "import os; print(os.stat('/workspace').st_dev, open('/proc/1/stat').read().rsplit(')')[1].split()[19])"
	anna := s.runAs(t, annasKey, which).Stdout
	if again := s.runAs(t, annasKey, which).Stdout; again != anna {
		t.Errorf("anna's second run was in %q, her first in %q", again, anna)
	}
	if ben := s.runAs(t, bensKey, which).Stdout; ben == anna {
		t.Errorf("both ran in %q", ben)
	}
}

// Pages of an allowed origin may read what every door answers, others nothing.
func TestOriginsOfEveryDoor(t *testing.T) {
	const page = "https://app.example.com"
	s := startServer(t, "ALLOWED_ORIGINS="+page, "ALLOWED_HOSTS=sandbox.example.com", "POOL_SIZE=1", "MAX_BODY_MB=1")
	ask := func(method, path, origin, kind, host string, body io.Reader) (status int, allowed string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		req.Header.Set("Content-Type", kind)
		if method == http.MethodOptions {
			req.Header.Set("Access-Control-Request-Method", "POST")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode, strings.Join(resp.Header.Values("Access-Control-Allow-Origin"), ",")
	}
	const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
	for route, body := range map[string]string{
		"GET /sse": "", "POST /mcp": initialize, "POST /message": initialize, "POST /v1/execute": `{"code": "1"}`, "GET /health": "", "OPTIONS /mcp": "", "OPTIONS /sse": "",
	} {
		method, path, _ := strings.Cut(route, " ")
		for origin, allowed := range map[string]string{"": "", page: page, "https://evil.com": "", "null": ""} {
			for _, host := range []string{"127.0.0.1", "sandbox.example.com:8000"} {
				status, got := ask(method, path, origin, "application/json", host, strings.NewReader(body))
				if got != allowed {
					t.Errorf("%s from %q: %q may read the answer", route, origin, got)
				}
				if refused := status == http.StatusForbidden; refused != (origin != "" && allowed == "") {
					t.Errorf("%s from %q at %s: %d", route, origin, host, status)
				}
			}
		}
	}
	for _, path := range []string{"/mcp", "/message?sessionId=x", "/v1/execute"} {
		if status, _ := ask("POST", path, "", "text/plain", "localhost", strings.NewReader(initialize)); status != http.StatusUnsupportedMediaType {
			t.Errorf("text on %s: %d", path, status)
		}
		if status, _ := ask("POST", path, "", "application/json", "localhost", bytes.NewReader(make([]byte, 1<<20+1))); status != http.StatusRequestEntityTooLarge {
			t.Errorf("a large body on %s: %d", path, status)
		}
		if status, _ := ask("POST", path, "", "application/json", "evil.example.com", strings.NewReader(initialize)); status != http.StatusForbidden {
			t.Errorf("another host on %s: %d", path, status)
		}
	}
}

// A token of the issuer's does what a key does.
func TestOAuth(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	defer issuer.Close()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer.URL, "jwks_uri": issuer.URL + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public(), KeyID: "1", Use: "sig"}}})
	})
	token := func(subject, audience string) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: "1"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer: issuer.URL, Subject: subject, Audience: jwt.Audience{audience}, Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
		}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	s := startServer(t, "OAUTH_ISSUER="+issuer.URL, "OAUTH_AUDIENCE=us", "API_KEYS="+annasKey, "POOL_SIZE=1")
	status, header, _ := s.bearing(t, "", http.MethodPost, "/mcp", "{}")
	_, address, _ := strings.Cut(header.Get("WWW-Authenticate"), `resource_metadata="`)
	if status != http.StatusUnauthorized || strings.TrimSuffix(address, `"`) != s.url+"/.well-known/oauth-protected-resource/mcp" {
		t.Errorf("%d %v", status, header)
	}
	var resource struct {
		Resource string
		Issuers  []string `json:"authorization_servers"`
	}
	if err := getJSON(t, strings.TrimSuffix(address, `"`), &resource); err != nil || resource.Resource != s.url+"/mcp" || fmt.Sprint(resource.Issuers) != "["+issuer.URL+"]" {
		t.Errorf("%+v %v", resource, err)
	}
	file := s.runAs(t, token("anna", "us"), "open('a', 'w').write('x'); None").Files[0].FileID
	for bearer, want := range map[string]int{
		token("anna", "us"): http.StatusOK, token("ben", "us"): http.StatusNotFound, annasKey: http.StatusNotFound,
		token("anna", "them"): http.StatusUnauthorized, token("anna", "us") + "x": http.StatusUnauthorized,
	} {
		if status, _, text := s.bearing(t, bearer, http.MethodGet, "/v1/files/"+file, ""); status != want {
			t.Errorf("%d %s, not %d", status, text, want)
		}
	}
	streamable, err := mcpclient.NewStreamableHttpClient(s.url+"/mcp", transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + token("anna", "us")}))
	if text, failed := call(t, connect(t, streamable, err), map[string]any{"code": "print(6*7)"}); text != "42\n" || failed {
		t.Errorf("/mcp: %q", text)
	}
}
