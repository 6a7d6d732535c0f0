package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// poolTime is how long what was found of the pool is believed.
	poolTime = 10 * time.Second
	// memoryHeadroom is what a pod may use beyond MEMORY_LIMIT_MB. The supervisor ends programs
	// at that limit. The cgroup, which may end the supervisor too, has a higher one.
	memoryHeadroom = 64 << 20
)

// pool is what the backend knows of what keeps blanks ready.
type pool struct {
	what     string // its kind and name
	template string // those of the object that has its template
	name     string
	uid      string
	label    string // the value of vivarium.dev/pool
	hash     string // the version of the template, if that is known without a blank
	replicas int
	failure  string   // why pods cannot be created
	faults   []string // what does not fit in its template
	ownUsers bool     // pods are to have users of their own
	found    time.Time
}

// fault returns why the template does not fit, or nil.
func (p *pool) fault(namespace string) error {
	if len(p.faults) == 0 {
		return nil
	}
	return fmt.Errorf("the template of %s in the namespace %q does not fit this server's settings: %s", p.template, namespace, strings.Join(p.faults, "; "))
}

// recent returns the pool as it was at most poolTime ago.
func (b *Backend) recent(ctx context.Context) (*pool, error) {
	if known := b.known(); known != nil {
		return known, nil
	}
	select {
	case b.looking <- struct{}{}:
		defer func() { <-b.looking }()
	case <-ctx.Done():
		return nil, b.explain("look at the pool", context.Cause(ctx))
	}
	if known := b.known(); known != nil {
		return known, nil
	}
	return b.findPool(ctx)
}

// findPool asks the apiserver for the pool.
func (b *Backend) findPool(ctx context.Context) (*pool, error) {
	found, err := b.claimer.Pool(ctx)
	if err == nil || apierrors.IsNotFound(err) {
		b.setPool(found)
	}
	return found, err
}

func (b *Backend) setPool(p *pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pool = p
}

// current returns the pool as it was found last, which watchPool keeps up to date: what needs
// nothing of the apiserver goes on while that does not answer.
func (b *Backend) current(ctx context.Context) (*pool, error) {
	b.mu.Lock()
	last := b.pool
	b.mu.Unlock()
	if last != nil {
		return last, nil
	}
	return b.recent(ctx)
}

// watchPool looks at the pool regularly until ctx ends. What goes wrong shows where the pool is
// needed.
func (b *Backend) watchPool(ctx context.Context) {
	ticker := time.NewTicker(poolTime)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, connectTime)
		_, _ = b.findPool(bounded)
		cancel()
	}
}

func (b *Backend) known() *pool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pool == nil || time.Since(b.pool.found) > poolTime {
		return nil
	}
	return b.pool
}

// podFaults returns what is wrong with a template of pods, each with the field's name.
func (b *Backend) podFaults(spec *corev1.PodSpec) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		fault("automountServiceAccountToken must be false")
	}
	if container(spec.InitContainers, identityContainer) == nil {
		fault("initContainers must have %q, which makes the pod's key", identityContainer)
	}
	main := container(spec.Containers, sandboxContainer)
	if main == nil {
		fault("containers must have %q", sandboxContainer)
		return faults
	}
	if b.opts.Image != "" && main.Image != b.opts.Image {
		fault("the image of container %q is %q: must be %q (KUBERNETES_EXECUTOR_IMAGE)", main.Name, main.Image, b.opts.Image)
	}
	if !hasPort(main, b.opts.Port) {
		fault("the ports of container %q must have %d (KUBERNETES_LINK_PORT)", main.Name, b.opts.Port)
	}
	b.checkAuthorities(main, fault)
	b.checkLimits(main, fault)
	b.checkVolumes(spec, main, fault)
	return faults
}

// checkAuthorities checks that PID 1 accepts this server's certificate. Where the value is not in
// the template, the first connection shows that.
func (b *Backend) checkAuthorities(main *corev1.Container, fault func(format string, args ...any)) {
	if b.opts.Trusted == nil {
		return
	}
	at := slices.IndexFunc(main.Env, func(v corev1.EnvVar) bool { return v.Name == "VIVARIUM_LINK_CA" })
	if at < 0 {
		fault("env of container %q must have VIVARIUM_LINK_CA, the CA of this server's certificate", main.Name)
		return
	}
	if main.Env[at].ValueFrom != nil {
		return
	}
	if err := b.opts.Trusted([]byte(main.Env[at].Value)); err != nil {
		fault("VIVARIUM_LINK_CA of container %q does not fit this server's certificate (%v): KUBERNETES_LINK_DIR must have one that this CA has issued and that is still valid",
			main.Name, err)
	}
}

// checkLimits compares the limits of the template with the settings.
func (b *Backend) checkLimits(main *corev1.Container, fault func(format string, args ...any)) {
	limits, settings := main.Resources.Limits, b.opts.Settings
	if least, memory := settings.MemoryBytes+memoryHeadroom, limits.Memory(); memory.Value() < least {
		fault("limits.memory of container %q is %s: must be at least %s (MEMORY_LIMIT_MB and %d MB more)",
			main.Name, memory, mebibytes(least), memoryHeadroom>>20)
	}
	const thousandths = 1000
	if cpu := limits.Cpu(); cpu.MilliValue() != int64(settings.CPUs*thousandths) {
		fault("limits.cpu of container %q is %s: must be %v (CPU_LIMIT)", main.Name, cpu, settings.CPUs)
	}
}

// checkVolumes compares the folders that programs can write with the settings.
func (b *Backend) checkVolumes(spec *corev1.PodSpec, main *corev1.Container, fault func(format string, args ...any)) {
	for _, folder := range []struct {
		path, setting string
		bytes         int64 // zero means any
	}{
		{"/workspace", "WORKSPACE_LIMIT_MB", b.opts.Settings.WorkspaceBytes},
		{"/tmp", "TMP_LIMIT_MB", b.opts.Settings.TempBytes},
		{"/dev/shm", "", 0},
	} {
		volume := memoryVolume(spec, main, folder.path)
		switch {
		case volume == nil || volume.SizeLimit == nil:
			fault("container %q must mount an emptyDir with medium Memory and a sizeLimit at %s", main.Name, folder.path)
		case folder.bytes > 0 && volume.SizeLimit.Value() != folder.bytes:
			fault("sizeLimit of the emptyDir at %s is %s: must be %s (%s)", folder.path, volume.SizeLimit, mebibytes(folder.bytes), folder.setting)
		}
	}
}

// memoryVolume returns the volume in memory that a container has at a path, or nil.
func memoryVolume(spec *corev1.PodSpec, main *corev1.Container, path string) *corev1.EmptyDirVolumeSource {
	for _, mount := range main.VolumeMounts {
		if mount.MountPath != path {
			continue
		}
		for _, volume := range spec.Volumes {
			if volume.Name == mount.Name && volume.EmptyDir != nil && volume.EmptyDir.Medium == corev1.StorageMediumMemory {
				return volume.EmptyDir
			}
		}
	}
	return nil
}

func container(all []corev1.Container, name string) *corev1.Container {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

func hasPort(main *corev1.Container, port int) bool {
	for _, p := range main.Ports {
		if int(p.ContainerPort) == port {
			return true
		}
	}
	return false
}

// mebibytes returns a size as templates have it.
func mebibytes(bytes int64) string { return resource.NewQuantity(bytes, resource.BinarySI).String() }
