package kubernetes

import (
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const mb = 1 << 20

// fitting returns a Deployment that fits the settings of TestTemplate.
func fitting() *appsv1.Deployment {
	no := false
	volume := func(name, size string) corev1.Volume {
		limit := resource.MustParse(size)
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}}
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "blanks", Namespace: "boxes"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{labelPool: "zoo", labelState: stateFree}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				AutomountServiceAccountToken: &no,
				InitContainers:               []corev1.Container{{Name: "identity"}},
				Containers: []corev1.Container{{
					Name: "sandbox", Image: "image:1", Env: []corev1.EnvVar{{Name: "VIVARIUM_LINK_CA", Value: "ours"}}, Ports: []corev1.ContainerPort{{ContainerPort: 7443}},
					Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
						corev1.ResourceMemory: resource.MustParse("320Mi"), corev1.ResourceCPU: resource.MustParse("1500m"),
					}},
					VolumeMounts: []corev1.VolumeMount{{Name: "w", MountPath: "/workspace"}, {Name: "t", MountPath: "/tmp"}, {Name: "s", MountPath: "/dev/shm"}},
				}},
				Volumes: []corev1.Volume{volume("w", "128Mi"), volume("t", "64Mi"), volume("s", "16Mi")},
			}},
		},
	}
}

func TestTemplate(t *testing.T) {
	b := &Backend{opts: Options{Port: 7443, Image: "image:1", Settings: execution.Settings{
		MemoryBytes: 256 * mb, CPUs: 1.5, WorkspaceBytes: 128 * mb, TempBytes: 64 * mb,
	}, Trusted: func(authorities []byte) error {
		if string(authorities) != "ours" {
			return errors.New("signed by unknown authority")
		}
		return nil
	}}}
	main := func(d *appsv1.Deployment) *corev1.Container { return &d.Spec.Template.Spec.Containers[0] }
	limit := func(name corev1.ResourceName, value string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { main(d).Resources.Limits[name] = resource.MustParse(value) }
	}
	for name, test := range map[string]struct {
		change func(*appsv1.Deployment)
		want   string // "" for none
	}{
		"fits":          {func(*appsv1.Deployment) {}, ""},
		"more memory":   {limit(corev1.ResourceMemory, "1Gi"), ""},
		"little memory": {limit(corev1.ResourceMemory, "319Mi"), `limits.memory of container "sandbox" is 319Mi: must be at least 320Mi (MEMORY_LIMIT_MB and 64 MB more)`},
		"no memory":     {func(d *appsv1.Deployment) { delete(main(d).Resources.Limits, corev1.ResourceMemory) }, "limits.memory of container \"sandbox\" is 0"},
		"other cpu":     {limit(corev1.ResourceCPU, "1"), `limits.cpu of container "sandbox" is 1: must be 1.5 (CPU_LIMIT)`},
		"image":         {func(d *appsv1.Deployment) { main(d).Image = "image:2" }, `the image of container "sandbox" is "image:2": must be "image:1" (KUBERNETES_EXECUTOR_IMAGE)`},
		"port":          {func(d *appsv1.Deployment) { main(d).Ports = nil }, `the ports of container "sandbox" must have 7443 (KUBERNETES_LINK_PORT)`},
		"other CA": {
			func(d *appsv1.Deployment) { main(d).Env[0].Value = "theirs" },
			`VIVARIUM_LINK_CA of container "sandbox" does not fit this server's certificate (signed by unknown authority): KUBERNETES_LINK_DIR must have one`,
		},
		"no CA": {func(d *appsv1.Deployment) { main(d).Env = nil }, `env of container "sandbox" must have VIVARIUM_LINK_CA`},
		"CA elsewhere": {func(d *appsv1.Deployment) {
			main(d).Env[0] = corev1.EnvVar{Name: "VIVARIUM_LINK_CA", ValueFrom: &corev1.EnvVarSource{}}
		}, ""},
		"no identity": {func(d *appsv1.Deployment) { d.Spec.Template.Spec.InitContainers = nil }, `initContainers must have "identity"`},
		"no sandbox":  {func(d *appsv1.Deployment) { main(d).Name = "box" }, `containers must have "sandbox"`},
		"token":       {func(d *appsv1.Deployment) { d.Spec.Template.Spec.AutomountServiceAccountToken = nil }, "automountServiceAccountToken must be false"},
		"selector":    {func(d *appsv1.Deployment) { d.Spec.Selector = nil }, "spec.selector.matchLabels must have vivarium.dev/pool, and vivarium.dev/state=free"},
		"workspace": {func(d *appsv1.Deployment) {
			*d.Spec.Template.Spec.Volumes[0].EmptyDir.SizeLimit = resource.MustParse("1Gi")
		}, "sizeLimit of the emptyDir at /workspace is 1Gi: must be 128Mi (WORKSPACE_LIMIT_MB)"},
		"tmp on disk":    {func(d *appsv1.Deployment) { d.Spec.Template.Spec.Volumes[1].EmptyDir.Medium = "" }, `container "sandbox" must mount an emptyDir with medium Memory and a sizeLimit at /tmp`},
		"no size of shm": {func(d *appsv1.Deployment) { d.Spec.Template.Spec.Volumes[2].EmptyDir.SizeLimit = nil }, "at /dev/shm"},
	} {
		t.Run(name, func(t *testing.T) {
			d := fitting()
			test.change(d)
			fault := deploymentClaimer{b}.readDeployment(d).fault("boxes")
			switch {
			case test.want == "" && fault != nil:
				t.Errorf("it does not fit: %v", fault)
			case test.want != "" && (fault == nil || !strings.Contains(fault.Error(), test.want)):
				t.Errorf("the fault is %v, without %q", fault, test.want)
			}
		})
	}
}
