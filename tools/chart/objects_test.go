package chart

import (
	"bufio"
	"io"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	appsv1 "k8s.io/api/apps/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

// examine checks that each object is one of Kubernetes and has no fields that Kubernetes does not
// have, and that pods in a namespace that enforces a level of Pod Security meet it.
func examine(t *testing.T, rendered string) {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(rendered)))
	levels, pods := make(map[string]api.Level), make(map[string][]*corev1.PodTemplateSpec) // by namespace
	for {
		document, err := documents.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if namespace, pod := sandboxTemplate(t, document); pod != nil {
			pods[namespace] = append(pods[namespace], pod)
		}
		if isEmpty(document) || isForeign(document) {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Errorf("%v in\n%.300s", err, document)
			continue
		}
		if namespace, ok := object.(*corev1.Namespace); ok {
			levels[namespace.Name] = api.Level(namespace.Labels[api.EnforceLevelLabel])
		}
		if namespace, pod := podOf(object); pod != nil {
			pods[namespace] = append(pods[namespace], pod)
		}
	}
	for namespace, level := range levels {
		if len(pods[namespace]) == 0 {
			t.Errorf("there are no pods in %s", namespace)
		}
		for _, pod := range pods[namespace] {
			meets(t, level, pod)
		}
	}
}

// isEmpty reports whether a document has comments alone.
func isEmpty(document []byte) bool {
	return !regexp.MustCompile(`(?m)^\s*[^#\s-]`).Match(document)
}

// isForeign reports whether an object is of an extension of Kubernetes.
func isForeign(document []byte) bool {
	return regexp.MustCompile(`(?m)^apiVersion: (cert-manager\.io|extensions\.agents\.x-k8s\.io)/`).Match(document)
}

// sandboxTemplate returns the template of pods that a SandboxTemplate has, and its namespace. That has no fields that
// Kubernetes does not have; a cluster checks the others.
func sandboxTemplate(t *testing.T, document []byte) (namespace string, pod *corev1.PodTemplateSpec) {
	t.Helper()
	if !regexp.MustCompile(`(?m)^kind: SandboxTemplate$`).Match(document) {
		return "", nil
	}
	var found struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			NetworkPolicyManagement string                 `json:"networkPolicyManagement"`
			PodTemplate             corev1.PodTemplateSpec `json:"podTemplate"`
		} `json:"spec"`
	}
	if err := sigsyaml.UnmarshalStrict(document, &found); err != nil {
		t.Errorf("%v in\n%.300s", err, document)
	}
	return found.Namespace, &found.Spec.PodTemplate
}

// podOf returns the template of an object's pods, if it has any, and its namespace.
func podOf(object runtime.Object) (namespace string, pod *corev1.PodTemplateSpec) {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return o.Namespace, &o.Spec.Template
	case *appsv1.DaemonSet:
		return o.Namespace, &o.Spec.Template
	}
	return "", nil
}

// meets checks a pod against a level of Pod Security.
func meets(t *testing.T, level api.Level, pod *corev1.PodTemplateSpec) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	results := evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
	if result := policy.AggregateCheckResults(results); !result.Allowed {
		t.Errorf("a pod does not meet %s: %s", level, result.ForbiddenDetail())
	}
}
