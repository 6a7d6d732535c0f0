package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/distribution/reference"
)

// hasContainers reports whether sandboxes may be containers of an engine, to which flags of
// docker run apply.
func hasContainers(backend string) bool { return backend != "local" && backend != "kubernetes" }

// kubernetesFaults finds settings that the Kubernetes backend does not allow.
func (c Config) kubernetesFaults() []error {
	if c.Backend != "kubernetes" {
		return nil
	}
	var faults []error
	settings := byName()
	if c.Network != "none" && c.Network != "pod" {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_NETWORK is %q: must be none, or pod for the network of the sandbox's pod, with EXECUTOR_BACKEND=kubernetes", c.Network))
	}
	if c.Image != settings["PYTHON_EXECUTOR_DOCKER_IMAGE"].Default {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_IMAGE is %q: must not be set with EXECUTOR_BACKEND=kubernetes, where the template of KUBERNETES_POOL has the image", c.Image))
	}
	if c.Runtime != "" {
		faults = append(faults, fmt.Errorf("PYTHON_EXECUTOR_DOCKER_RUNTIME is %q: must be empty with EXECUTOR_BACKEND=kubernetes, where the template of KUBERNETES_POOL has a runtimeClassName", c.Runtime))
	}
	if _, err := netip.ParseAddr(c.PodIP); c.PodIP != "" && err != nil {
		faults = append(faults, fmt.Errorf("POD_IP is %q: must be %s", c.PodIP, settings["POD_IP"].Allowed))
	}
	if _, err := reference.ParseAnyReference(c.KubernetesImage); c.KubernetesImage != "" && err != nil {
		faults = append(faults, fmt.Errorf("KUBERNETES_EXECUTOR_IMAGE is %q: must be %s", c.KubernetesImage, settings["KUBERNETES_EXECUTOR_IMAGE"].Allowed))
	}
	return faults
}

// PeerAddress returns the address at which other servers reach this one, or "" if they do not.
func (c Config) PeerAddress() string {
	if c.Backend != "kubernetes" || c.PodIP == "" || c.PeerPort == 0 {
		return ""
	}
	return net.JoinHostPort(c.PodIP, strconv.Itoa(c.PeerPort))
}
