package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Names is a list of names, in lower case. The zero value is an empty one.
type Names []string

// EnvDecode implements [envconfig.Decoder].
func (n *Names) EnvDecode(value string) error {
	*n = nil
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			*n = append(*n, name)
		}
	}
	return nil
}

// accessFaults finds what is wrong with the settings of who may use the server.
func (c Config) accessFaults() []error {
	var faults []error
	for _, s := range Settings() {
		switch s.Name {
		case "ALLOWED_HOSTS":
			faults = append(faults, s.faults(c.AllowedHosts, hostName())...)
		case "ALLOWED_ORIGINS":
			faults = append(faults, s.faults(c.AllowedOrigins, origin())...)
		}
	}
	return faults
}

// faults finds the names that are not of a form.
func (s Setting) faults(names Names, form *regexp.Regexp) []error {
	i := slices.IndexFunc(names, func(name string) bool { return !form.MatchString(name) })
	if i < 0 {
		return nil
	}
	return []error{fmt.Errorf("%s has %q: must be %s", s.Name, names[i], s.Allowed)}
}

const hostForm = `[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*`

func hostName() *regexp.Regexp { return regexp.MustCompile(`^` + hostForm + `$`) }

// origin is what a browser sends as Origin, but for "null", which any page can
// have itself sent.
func origin() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z][a-z0-9+.-]*://(` + hostForm + `|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)
}
