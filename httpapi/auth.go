package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Authenticator says who bears a key or token. Its error has code
// [execution.Unauthenticated] where that is nobody.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (execution.Owner, error)
}

// resourcePath is where clients learn who gives tokens for this server (RFC
// 9728); behind it comes the path of what is protected.
const resourcePath = "/.well-known/oauth-protected-resource"

// mcpPath is the door that clients of OAuth know by its own URL.
const mcpPath = "/mcp"

const notAuthenticated = "Not authenticated: the request must have the header Authorization: Bearer KEY"

// authenticate lets through who bears a valid key or token, as the owner of what
// they make.
func (a *api) authenticate(p policy, next http.Handler) http.Handler {
	if a.opts.Auth == nil || p.public {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bearer, given := bearerOf(r)
		if !given {
			w.Header().Set("WWW-Authenticate", a.challenge(p, r, ""))
			writeDetail(w, http.StatusUnauthorized, notAuthenticated)
			return
		}
		owner, err := a.opts.Auth.Authenticate(r.Context(), bearer)
		if err != nil {
			if execution.AsError(err).Code == execution.Unauthenticated {
				w.Header().Set("WWW-Authenticate", a.challenge(p, r, "invalid_token"))
			}
			a.writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(execution.WithOwner(r.Context(), owner)))
	})
}

// bearerOf gives the key or token of a request (RFC 6750).
func bearerOf(r *http.Request) (string, bool) {
	kind, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	bearer = strings.TrimSpace(bearer)
	return bearer, strings.EqualFold(kind, "Bearer") && bearer != ""
}

// challenge says how to authenticate, and what was wrong with how it was done,
// if it was.
func (a *api) challenge(p policy, r *http.Request, fault string) string {
	text := `Bearer realm="vivarium"`
	if fault != "" {
		text += `, error="` + fault + `"`
	}
	if a.opts.Issuer != "" {
		text += `, resource_metadata="` + a.baseURL(r) + resourcePath + p.resource + `"`
	}
	return text
}

// baseURL is where the client of a request reaches the server.
func (a *api) baseURL(r *http.Request) string {
	if a.opts.PublicURL != "" {
		return a.opts.PublicURL
	}
	return scheme(r) + "://" + r.Host
}

// resource describes this server to clients of OAuth.
type resource struct {
	Resource      string   `json:"resource"`
	Name          string   `json:"resource_name"`
	Issuers       []string `json:"authorization_servers"`
	BearerMethods []string `json:"bearer_methods_supported"`
}

// protectedResources are the paths of what OAuth clients know by a URL of its own;
// "" is the server.
func protectedResources() []string { return []string{"", mcpPath} }

// registerResources adds the routes that describe the server to clients of OAuth.
// They are no part of the API's description. Without an issuer they are unknown, and
// need no key either: that is how clients learn that there is none.
func (a *api) registerResources() {
	for _, path := range protectedResources() {
		if a.opts.Issuer == "" {
			a.handle(resourcePath+path, policy{public: true}, notFound)
			continue
		}
		a.handle("GET "+resourcePath+path, policy{public: true}, func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, resource{
				Resource: a.baseURL(r) + path, Name: "Vivarium", Issuers: []string{a.opts.Issuer}, BearerMethods: []string{"header"},
			})
		})
	}
}

// describeAuthentication adds to the description that requests need a key or token.
func (a *api) describeAuthentication() {
	const name = "bearer"
	spec := a.huma.OpenAPI()
	spec.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		name: {Type: "http", Scheme: "bearer", Description: "A key of the server's, or a token of its OAuth issuer."},
	}
	spec.Security = []map[string][]string{{name: {}}}
	for operation := range operations(spec) {
		if a.policies[operation.Method+" "+wildcard(operation.Path)].public {
			operation.Security = []map[string][]string{} // none, unlike nil
			continue
		}
		operation.Responses[strconv.Itoa(http.StatusUnauthorized)] = jsonAnswer[apiError](a.huma)
	}
}
