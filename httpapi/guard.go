package httpapi

import (
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// guard refuses what a web page can send to a server on its reader's machine:
// a browser always names the page's origin in a cross-site POST, and after DNS
// rebinding the Host is a name that somebody owns. Programs send no Origin.
//
// A page of an allowed origin may do what the server's own may.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Origin")
		if !allowedHost(a.opts.AllowedHosts, r) {
			writeDetail(w, http.StatusForbidden, "Forbidden: the Host "+execution.Clip(r.Host)+" is not one of this server's (ALLOWED_HOSTS names them)")
			return
		}
		origin := strings.Join(r.Header.Values("Origin"), " ") // of two, neither is meant
		switch {
		case origin == "", sameOrigin(origin, r):
			next.ServeHTTP(allowing(w, nil), r)
		case slices.Contains(a.opts.AllowedOrigins, strings.ToLower(origin)):
			serveForeign(w, r, next)
		default:
			writeDetail(w, http.StatusForbidden, "Forbidden: requests from the origin "+execution.Clip(origin)+" are not allowed (ALLOWED_ORIGINS names those that are)")
		}
	})
}

// sameOrigin says whether an origin is the server's own, as browsers write it
// (https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin).
func sameOrigin(origin string, r *http.Request) bool {
	return strings.EqualFold(origin, scheme(r)+"://"+r.Host)
}

// scheme is what a request came over, as far as this server can know it: a proxy
// in front of it may have ended TLS.
func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// maxHostBytes is as long as a name of the DNS may be, with a port. Answers repeat
// the Host in URLs.
const maxHostBytes = 253 + len(":65535")

// allowedHost says whether a request calls the server by a name that it may have.
func allowedHost(names []string, r *http.Request) bool {
	if r.Host == "" {
		return !r.ProtoAtLeast(1, 1) // no browser's, and HTTP/1.0 needs none
	}
	name, ok := hostName(r.Host)
	return ok && len(r.Host) <= maxHostBytes && (ownHost(name) || slices.Contains(names, name))
}

// hostName gives a Host's name or address without port, in lower case, or says
// that it is no Host.
func hostName(host string) (name string, ok bool) {
	name, port, found := cutPort(host)
	if found && (port == "" || strings.Trim(port, "0123456789") != "") {
		return "", false
	}
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		address, err := netip.ParseAddr(name[1 : len(name)-1])
		zoned := address.Zone() != "" && !address.IsLinkLocalUnicast()
		return strings.ToLower(name), err == nil && address.Is6() && !zoned
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	return name, isName(name)
}

// cutPort cuts a Host's port off, if it has one.
func cutPort(host string) (name, port string, found bool) {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || colon < strings.LastIndexByte(host, ']') {
		return host, "", false
	}
	return host[:colon], host[colon+1:], true
}

// isName says whether a text in lower case is a name of the DNS or the like, or an
// IPv4 address.
func isName(text string) bool {
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// ownHost says whether a name is one that nobody can own in the public DNS: an
// address, a single label such as a service's name, or a reserved suffix.
func ownHost(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil || !strings.Contains(name, ".") || strings.HasPrefix(name, "[") {
		return true
	}
	for _, suffix := range []string{".localhost", ".local", ".internal", ".svc", ".cluster.local", ".home.arpa"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// requireJSON refuses a body that is not declared as JSON where it must be. A
// browser sends other types, and none, to any server without asking it first.
func requireJSON(p policy, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.needsJSON(r) && !isJSON(r.Header.Get("Content-Type")) {
			writeDetail(w, http.StatusUnsupportedMediaType, "Unsupported Media Type: Content-Type must be application/json")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"))
}
