package cli

import (
	"bytes"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
)

// The server's own public name and pages are allowed beside what the settings
// allow.
func TestAccess(t *testing.T) {
	c := defaults(t)
	a, err := newAccess(c)
	if err != nil || len(a.hosts)+len(a.origins) > 0 || a.authenticator != nil {
		t.Errorf("%+v, %v", a, err)
	}
	c.AllowedHosts, c.AllowedOrigins, c.PublicURL = []string{"a.example.com"}, []string{"https://b.example.com"}, "https://c.example.com:8443"
	a, err = newAccess(c)
	if err != nil || !slices.Equal(a.hosts, []string{"a.example.com", "c.example.com"}) ||
		!slices.Equal(a.origins, []string{"https://b.example.com", "https://c.example.com:8443"}) {
		t.Errorf("%+v, %v", a, err)
	}
}

// A server without authentication logs a warning at every LOG_LEVEL, unless only this
// machine can reach it.
func TestWarning(t *testing.T) {
	for name, test := range map[string]struct {
		address string
		issuer  string
		warns   bool
	}{
		"loopback":             {"127.0.0.1:8000", "", false},
		"loopback, version 6":  {"[::1]:8000", "", false},
		"everywhere":           {"0.0.0.0:8000", "", true},
		"an address":           {"192.0.2.1:8000", "", true},
		"everywhere, guarded":  {"[::]:8000", "https://issuer.example.com", false},
		"everywhere version 6": {"[::]:8000", "", true},
	} {
		c := defaults(t)
		c.OAuthIssuer = test.issuer
		a, err := newAccess(c)
		if err != nil {
			t.Fatal(err)
		}
		address, err := net.ResolveTCPAddr("tcp", test.address)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		loudAlone := &slog.HandlerOptions{Level: slog.LevelError} // LOG_LEVEL=error
		a.warn(t.Context(), slog.New(slog.NewTextHandler(&text, loudAlone)), address)
		if warned := strings.Contains(text.String(), "NO AUTHENTICATION"); warned != test.warns {
			t.Errorf("%s: %s", name, &text)
		}
	}
}
