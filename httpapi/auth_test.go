package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/httpapi"
)

// known is an Authenticator with the owner of each key.
type known map[string]execution.Owner

func (k known) Authenticate(_ context.Context, bearer string) (execution.Owner, error) {
	switch owner, ok := k[bearer]; {
	case bearer == "token":
		return "", &execution.Error{Code: execution.Unavailable, Message: "the issuer does not answer"}
	case !ok:
		return "", &execution.Error{Code: execution.Unauthenticated, Message: "the key is not valid"}
	default:
		return owner, nil
	}
}

// locked returns a server that needs a key. It records the owners of the requests that its
// doors serve.
func locked(served *[]execution.Owner, change func(*httpapi.Options)) http.Handler {
	note := func(ctx context.Context) { *served = append(*served, execution.OwnerOf(ctx)) }
	opts := options(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		note(ctx)
		return validates(ctx, req)
	})
	opts.Auth = known{"anna's key": "anna", "ben's key": "ben"}
	opts.AllowedOrigins = []string{"https://app.example.com"}
	opts.Mount = map[string]http.Handler{"/mcp": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { note(r.Context()) })}
	if change != nil {
		change(&opts)
	}
	return httpapi.NewHandler(opts)
}

func authorized(method, path, body, authorization string) *http.Request {
	r := request(method, path, body)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

func TestKeys(t *testing.T) {
	none := `{"detail": "Not authenticated: the request must have the header Authorization: Bearer KEY"}`
	wrong := `{"detail": "the key is not valid"}`
	for authorization, test := range map[string]struct {
		owner     execution.Owner
		answer    string
		challenge string
	}{
		"Bearer anna's key":  {owner: "anna"},
		"bearer  ben's key ": {owner: "ben"},
		"":                   {answer: none, challenge: `Bearer realm="vivarium"`},
		"Basic YTpi":         {answer: none, challenge: `Bearer realm="vivarium"`},
		"Bearer":             {answer: none, challenge: `Bearer realm="vivarium"`},
		"anna's key":         {answer: none, challenge: `Bearer realm="vivarium"`},
		"Bearer x":           {answer: wrong, challenge: `Bearer realm="vivarium", error="invalid_token"`},
	} {
		for _, path := range []string{"/v1/execute", "/mcp"} {
			var served []execution.Owner
			a := serve(locked(&served, nil), authorized(http.MethodPost, path, `{"code": ""}`, authorization))
			if test.owner != "" {
				if a.status != http.StatusOK || len(served) != 1 || served[0] != test.owner {
					t.Errorf("%q %s: %d %s, served: %q", authorization, path, a.status, a.body, served)
				}
				continue
			}
			a.want(t, http.StatusUnauthorized, test.answer)
			if got := a.header.Get("WWW-Authenticate"); got != test.challenge || len(served) > 0 {
				t.Errorf("%q %s: challenged with %s, served: %q", authorization, path, got, served)
			}
		}
	}
}

// While the issuer does not answer, a token is not refused as invalid.
func TestIssuerIsDown(t *testing.T) {
	var served []execution.Owner
	a := serve(locked(&served, nil), authorized(http.MethodPost, "/mcp", `{}`, "Bearer token"))
	a.want(t, http.StatusServiceUnavailable, `{"detail": "the issuer does not answer"}`)
	if a.header.Get("WWW-Authenticate") != "" || a.header.Get("Retry-After") == "" || len(served) > 0 {
		t.Errorf("%v, served: %q", a.header, served)
	}
}

// Only the routes that describe the server need no key.
func TestPublicRoutes(t *testing.T) {
	var served []execution.Owner
	h := locked(&served, nil)
	for path, status := range map[string]int{
		"/health": http.StatusOK, "/docs": http.StatusOK, "/redoc": http.StatusOK, "/openapi.json": http.StatusOK,
		"/": http.StatusUnauthorized, "/nope": http.StatusUnauthorized, "/v1/files": http.StatusUnauthorized, "/v1/files/x": http.StatusUnauthorized,
		"/v1/sessions": http.StatusUnauthorized, "/mcp": http.StatusUnauthorized, "//health": http.StatusUnauthorized, "/health/": http.StatusUnauthorized,
		"/health/../v1/files": http.StatusUnauthorized,
	} {
		if a := serve(h, request(http.MethodGet, path, "")); a.status != status {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	r := authorized(http.MethodPost, "/mcp", `{}`, "Bearer anna's key")
	r.Header.Set("Origin", "https://evil.com")
	if a := serve(h, r); a.status != http.StatusForbidden {
		t.Errorf("a key does for an origin: %d", a.status)
	}
	r = request(http.MethodOptions, "/v1/execute", "")
	r.Header.Set("Origin", "https://app.example.com")
	r.Header.Set("Access-Control-Request-Method", http.MethodPost)
	if a := serve(h, r); a.status != http.StatusNoContent {
		t.Errorf("a browser's question, which never has a key: %d", a.status)
	}
}

// OAuth clients find the issuer of tokens (RFC 9728).
func TestResourceMetadata(t *testing.T) {
	var served []execution.Owner
	for name, test := range map[string]struct {
		public, base string
	}{
		"as the request says": {"", "http://localhost:8000"},
		"behind a proxy":      {"https://sandbox.example.com", "https://sandbox.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			h := locked(&served, func(opts *httpapi.Options) {
				opts.Issuer, opts.PublicURL = "https://issuer.example.com", test.public
			})
			for _, path := range []string{"", "/mcp"} {
				const wellKnown = "/.well-known/oauth-protected-resource"
				serve(h, request(http.MethodGet, wellKnown+path, "")).want(t, http.StatusOK, `{"resource": "`+test.base+path+`",
					"resource_name": "Vivarium", "authorization_servers": ["https://issuer.example.com"], "bearer_methods_supported": ["header"]}`)
				door := path
				if door == "" {
					door = "/v1/execute"
				}
				a := serve(h, request(http.MethodPost, door, `{}`))
				want := `Bearer realm="vivarium", resource_metadata="` + test.base + wellKnown + path + `"`
				if got := a.header.Get("WWW-Authenticate"); a.status != http.StatusUnauthorized || got != want {
					t.Errorf("%s: %d, %s", door, a.status, got)
				}
			}
		})
	}
	without := locked(&served, nil)
	if a := serve(without, authorized(http.MethodGet, "/.well-known/oauth-protected-resource", "", "Bearer anna's key")); a.status != http.StatusNotFound {
		t.Errorf("without an issuer: %d %s", a.status, a.body)
	}
}

// The description marks the operations that need a key.
func TestSecurityIsDescribed(t *testing.T) {
	var served []execution.Owner
	text := serve(locked(&served, nil), request(http.MethodGet, "/openapi.json", "")).body
	for path, item := range loadOpenAPI(t, []byte(text)).Paths.Map() {
		for method, operation := range item.Operations() {
			if described := operation.Responses.Status(http.StatusUnauthorized) != nil; described == (path == "/health") {
				t.Errorf("%s %s: 401 is described: %v", method, path, described)
			}
		}
	}
	for _, want := range []string{`"securitySchemes":{"bearer":{`, `"security":[{"bearer":[]}]`, `"security":[]`} {
		if !strings.Contains(text, want) {
			t.Errorf("it has no %s", want)
		}
	}
}
