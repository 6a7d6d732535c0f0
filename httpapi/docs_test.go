package httpapi_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// The pages load nothing from other hosts, and their policy forbids it.
func TestDocs(t *testing.T) {
	for path, mode := range map[string]string{"/docs": "try", "/redoc": "reference"} {
		t.Run(path, func(t *testing.T) {
			a := serve(handler(validates), request(http.MethodGet, path, ""))
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%d %v %.100s", a.status, a.header, a.body)
			}
			for _, want := range []string{"/openapi.json", `data-mode="` + mode + `"`} {
				if !strings.Contains(a.body, want) {
					t.Errorf("%s is not in the page", want)
				}
			}
			foreign := regexp.MustCompile(`(?i)https?://|(src|href|url)\s*[=(]\s*["']?//|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\{\{`)
			if found := foreign.FindString(a.body); found != "" {
				t.Errorf("%q is in the page", found)
			}
		})
	}
}

// The policy allows only the style and the script of the page, by their hashes.
func TestDocsPolicy(t *testing.T) {
	for _, path := range []string{"/docs", "/redoc"} {
		a := serve(handler(validates), request(http.MethodGet, path, ""))
		want := "default-src 'none'; style-src " + hashOf(t, a.body, "style") + "; script-src " + hashOf(t, a.body, "script") +
			"; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		if got := a.header.Get("Content-Security-Policy"); got != want {
			t.Errorf("the policy of %s is\n%s\nnot\n%s", path, got, want)
		}
	}
}

// hashOf returns the hash of the only element of a kind, as a browser computes it.
func hashOf(t *testing.T, page, element string) string {
	t.Helper()
	_, rest, _ := strings.Cut(page, "<"+element+">")
	text, rest, ok := strings.Cut(rest, "</"+element+">")
	if !ok || strings.Contains(rest, "<"+element) {
		t.Fatalf("the page has not one %s", element)
	}
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
