package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Authenticator returns the owner that a key or token identifies. Its error has code
// [execution.Unauthenticated] if the key or token is not valid.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (execution.Owner, error)
}

// resourcePath is the path of the metadata that names the issuer of tokens for this
// server (RFC 9728). The path of the protected resource follows it.
const resourcePath = "/.well-known/oauth-protected-resource"

// mcpPath is the path of the MCP door, which OAuth clients know by its own URL.
const mcpPath = "/mcp"

const notAuthenticated = "Not authenticated: the request must have the header Authorization: Bearer KEY"

// authenticate refuses requests without a valid key or token. It puts the owner of the
// others into their context.
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
		ownConnection(r.Context(), owner)
		next.ServeHTTP(w, r.WithContext(execution.WithOwner(r.Context(), owner)))
	})
}

// bearerOf returns the key or token of a request (RFC 6750).
func bearerOf(r *http.Request) (string, bool) {
	kind, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	bearer = strings.TrimSpace(bearer)
	return bearer, strings.EqualFold(kind, "Bearer") && bearer != ""
}

// challenge returns the WWW-Authenticate header, which describes how to authenticate and,
// unless fault is empty, what was wrong.
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

// baseURL returns the URL of the server for the client of a request.
func (a *api) baseURL(r *http.Request) string {
	if a.opts.PublicURL != "" {
		return a.opts.PublicURL
	}
	return scheme(r) + "://" + r.Host
}

// resource is the metadata of this server for OAuth clients.
type resource struct {
	Resource      string   `json:"resource"`
	Name          string   `json:"resource_name"`
	Issuers       []string `json:"authorization_servers"`
	BearerMethods []string `json:"bearer_methods_supported"`
}

// protectedResources returns the paths that OAuth clients know by URLs of their own. The
// empty path is the server.
func protectedResources() []string { return []string{"", mcpPath} }

// registerResources adds the routes of the metadata for OAuth clients. They are not part
// of the API's description. Without an issuer they return 404 to clients without a key
// too, from which they learn that the server has no issuer.
func (a *api) registerResources() {
	for _, path := range protectedResources() {
		if a.opts.Issuer == "" {
			a.handle(resourcePath+path, policy{public: true, ignoresBody: true}, notFound)
			continue
		}
		a.handle("GET "+resourcePath+path, policy{public: true}, func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, resource{
				Resource: a.baseURL(r) + path, Name: "Vivarium", Issuers: []string{a.opts.Issuer}, BearerMethods: []string{"header"},
			})
		})
	}
}

// describeAuthentication adds the need for a key or token to the description.
func (a *api) describeAuthentication() {
	const name = "bearer"
	spec := a.huma.OpenAPI()
	spec.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		name: {Type: "http", Scheme: "bearer", Description: "A key of the server, or a token of its OAuth issuer."},
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
