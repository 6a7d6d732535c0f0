package httpapi

import (
	"context"
	"net/http"
	"slices"
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

// openPaths are for everybody: they tell what the server is, not what it has.
func openPaths() []string {
	return []string{"/health", "/docs", "/redoc", "/openapi.json", resourcePath, resourcePath + mcpPath}
}

// authenticate lets through who bears a valid key or token, as the owner of what
// they make.
func authenticate(opts Options, next http.Handler) http.Handler {
	if opts.Auth == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(openPaths(), r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		bearer, given := bearerOf(r)
		if !given {
			w.Header().Set("WWW-Authenticate", challenge(opts, r, ""))
			writeDetail(w, http.StatusUnauthorized, notAuthenticated)
			return
		}
		owner, err := opts.Auth.Authenticate(r.Context(), bearer)
		if err != nil {
			if execution.AsError(err).Code == execution.Unauthenticated {
				w.Header().Set("WWW-Authenticate", challenge(opts, r, "invalid_token"))
			}
			writeError(w, r, opts, err)
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
func challenge(opts Options, r *http.Request, fault string) string {
	text := `Bearer realm="vivarium"`
	if fault != "" {
		text += `, error="` + fault + `"`
	}
	if opts.Issuer != "" {
		path := resourcePath
		if r.URL.Path == mcpPath {
			path += mcpPath
		}
		text += `, resource_metadata="` + baseURL(opts, r) + path + `"`
	}
	return text
}

// baseURL is where the client of a request reaches the server.
func baseURL(opts Options, r *http.Request) string {
	if opts.PublicURL != "" {
		return opts.PublicURL
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

// registerResource adds the routes that describe the server to clients of OAuth.
// They are no part of the API's description.
func registerResource(mux *http.ServeMux, opts Options) {
	if opts.Issuer == "" {
		return
	}
	for _, path := range []string{"", mcpPath} {
		mux.HandleFunc("GET "+resourcePath+path, func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, http.StatusOK, resource{
				Resource: baseURL(opts, r) + path, Name: "Vivarium", Issuers: []string{opts.Issuer}, BearerMethods: []string{"header"},
			})
		})
		mux.HandleFunc(resourcePath+path, methodNotAllowed([]string{http.MethodGet}))
	}
}

// tellAuthentication has the description say that requests need a key or token.
func tellAuthentication(api huma.API) {
	const name = "bearer"
	spec := api.OpenAPI()
	spec.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		name: {Type: "http", Scheme: "bearer", Description: "A key of the server's, or a token of its OAuth issuer."},
	}
	spec.Security = []map[string][]string{{name: {}}}
	for path, item := range spec.Paths {
		open := slices.Contains(openPaths(), path)
		for _, operation := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete} {
			switch {
			case operation == nil:
			case open:
				operation.Security = []map[string][]string{} // none, unlike nil
			default:
				response := jsonAnswer[apiError](api)
				operation.Responses[strconv.Itoa(http.StatusUnauthorized)] = response
			}
		}
	}
}
