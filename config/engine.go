package config

import (
	"fmt"
	"regexp"

	"github.com/distribution/reference"
)

// engineFaults finds what is wrong with the settings of the engine, as far as that
// shows without it.
func (c Config) engineFaults() []error {
	var faults []error
	for _, s := range Settings() {
		switch s.Name {
		case "DOCKER_HOST":
			if c.DockerHost != "" && !engineAddress().MatchString(c.DockerHost) {
				faults = append(faults, fmt.Errorf("DOCKER_HOST is %q: must be %s", redact(c.DockerHost), s.Allowed))
			}
		case "PYTHON_EXECUTOR_DOCKER_IMAGE":
			if _, err := reference.ParseAnyReference(c.Image); err != nil {
				faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_IMAGE is %q: must be %s", c.Image, s.Allowed))
			}
		}
	}
	return faults
}

// engineAddress matches what the engine's client accepts. Unlike the Docker CLI, that
// does not use ssh.
func engineAddress() *regexp.Regexp {
	return regexp.MustCompile(`^(unix://.+|(tcp|https?)://[^\s/@]+(/\S*)?)$`)
}
