package httpapi

import (
	_ "embed"
	"net/http"
)

// docsPage renders /openapi.json in the browser. It needs nothing from
// elsewhere.
//
//go:embed docs.html
var docsPage []byte

func serveDocs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'")
	_, _ = w.Write(docsPage) // the client may be gone
}
