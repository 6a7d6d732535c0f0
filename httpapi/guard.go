package httpapi

import (
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// guard refuses requests that a web page can send to a server on the machine of its
// visitor. A browser always sends the page's origin with a cross-site POST, and after DNS
// rebinding the Host is a name of the public DNS. Programs send no Origin.
//
// A page of an allowed origin may send the same requests as a page of the server.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forbid := func(why string) {
			refused := func(w http.ResponseWriter, _ *http.Request) { writeDetail(w, http.StatusForbidden, "Forbidden: "+why) }
			a.drain(a.jsonBody(), strangerDrain, http.HandlerFunc(refused)).ServeHTTP(w, r)
		}
		w.Header().Add("Vary", "Origin")
		if !allowedHost(a.opts.AllowedHosts, r) {
			forbid("the Host " + execution.Clip(r.Host) + " is not allowed (ALLOWED_HOSTS names those that are)")
			return
		}
		origin := strings.Join(r.Header.Values("Origin"), " ") // two are never valid
		switch {
		case origin == "", sameOrigin(origin, r):
			next.ServeHTTP(allowing(w, nil), r)
		case slices.Contains(a.opts.AllowedOrigins, strings.ToLower(origin)):
			serveForeign(w, r, next)
		default:
			forbid("requests from the origin " + execution.Clip(origin) + " are not allowed (ALLOWED_ORIGINS names those that are)")
		}
	})
}

// sameOrigin reports whether an origin is that of the server, as browsers write it
// (https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin).
func sameOrigin(origin string, r *http.Request) bool {
	return strings.EqualFold(origin, scheme(r)+"://"+r.Host)
}

// scheme returns the scheme of a request. Behind a proxy that ends TLS it is http.
func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// maxHostBytes is the longest name of the DNS with a port. Answers repeat the Host in
// URLs.
const maxHostBytes = 253 + len(":65535")

// allowedHost reports whether a request names the server by one of its own or the allowed
// names.
func allowedHost(names []string, r *http.Request) bool {
	if r.Host == "" {
		return !r.ProtoAtLeast(1, 1) // not from a browser; HTTP/1.0 does not require it
	}
	name, ok := hostName(r.Host)
	return ok && len(r.Host) <= maxHostBytes && (ownHost(name) || slices.Contains(names, name))
}

// hostName returns the name or address of a Host without its port, in lower case. It
// reports whether the Host is valid.
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

// cutPort splits a Host into its name and its port, if it has one.
func cutPort(host string) (name, port string, found bool) {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || colon < strings.LastIndexByte(host, ']') {
		return host, "", false
	}
	return host[:colon], host[colon+1:], true
}

// isName reports whether a text in lower case has the form of a name of the DNS or of an
// IPv4 address.
func isName(text string) bool {
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// ownHost reports whether a name cannot be registered in the public DNS: it is an
// address, a single label such as the name of a service, or has a reserved suffix.
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

// requireJSON refuses a body that must be JSON and is not declared as JSON. A browser
// sends other media types, and none, to any server without a preflight request.
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
