package httpapi

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// guard refuses what a web page can send to a server on its reader's machine:
// a browser always names the page's origin in a cross-site POST, and after DNS
// rebinding the Host is a name that somebody owns. Programs send no Origin.
//
// A page of an allowed origin may do what the server's own may.
func guard(opts Options, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &corsWriter{ResponseWriter: w}
		answer.Header().Add("Vary", "Origin")
		if !ownHost(r.Host) && !slices.Contains(opts.AllowedHosts, hostName(r.Host)) {
			writeDetail(answer, http.StatusForbidden, "Forbidden: the Host "+r.Host+" is not one of this server's")
			return
		}
		origin := r.Header.Get("Origin")
		switch {
		case origin == "" || sameOrigin(origin, r):
			next.ServeHTTP(answer, r)
		case slices.Contains(opts.AllowedOrigins, strings.ToLower(origin)):
			serveForeign(answer, r, next)
		default:
			writeDetail(answer, http.StatusForbidden, "Forbidden: requests from the origin "+origin+" are not allowed")
		}
	})
}

func sameOrigin(origin string, r *http.Request) bool {
	parsed, err := url.Parse(origin)
	return err == nil && parsed.Scheme == scheme(r) && strings.EqualFold(parsed.Host, r.Host)
}

// scheme is what a request came over, as far as this server can know it: a proxy
// in front of it may have ended TLS.
func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// hostName gives a Host's name or address without port, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// ownHost says whether a Host is a name that nobody can own in the public DNS:
// an address, a single label such as a service's name, or a reserved suffix.
func ownHost(host string) bool {
	host = hostName(host)
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	for _, suffix := range []string{".localhost", ".local", ".internal", ".svc", ".cluster.local", ".home.arpa"} {
		if strings.HasSuffix(host, suffix) {
			return true
		}
	}
	return false
}

// requireJSON refuses a body that is not declared as JSON where it must be. A
// browser sends other types, and none, to any server without asking it first.
func requireJSON(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mustBeJSON(r) && !isJSON(r.Header.Get("Content-Type")) {
			writeDetail(w, http.StatusUnsupportedMediaType, "Unsupported Media Type: the body must be application/json")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// mustBeJSON says whether a request has a body that must be JSON.
func mustBeJSON(r *http.Request) bool {
	return r.Method == http.MethodPost && r.ContentLength != 0 && r.URL.Path != filesPath
}

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"))
}
