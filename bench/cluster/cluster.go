// Package cluster is what the benchmarks need of a Kubernetes cluster: requests to its
// apiserver, and a pool of sandboxes.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Cluster is a cluster, with the rights of a kubeconfig.
type Cluster struct {
	Kubeconfig string
	Config     *rest.Config
	client     *http.Client
}

// Connect reads a kubeconfig. It contacts nothing.
func Connect(kubeconfig string) (*Cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS = -1
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return &Cluster{kubeconfig, config, client}, nil
}

// Version returns the version of the apiserver.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	var version struct{ GitVersion string }
	err := c.Ask(ctx, http.MethodGet, "/version", nil, &version)
	return version.GitVersion, err
}

// StatusError is an answer of the apiserver other than success.
type StatusError struct {
	Code int
	What string // the request, and what the apiserver says
}

func (e *StatusError) Error() string { return e.What }

// Missing returns nil for the error of an object that is not there, and other errors as they are.
func Missing(err error) error {
	if answer, ok := errors.AsType[*StatusError](err); ok && answer.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// Ask makes a request to the apiserver. Body and answer are JSON; nil is none.
func (c *Cluster) Ask(ctx context.Context, method, path string, body, answer any) error {
	contentType := "application/json"
	if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	resp, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if answer == nil {
		_, err = io.Copy(io.Discard, resp.Body) // so that the connection is used again
		return err
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// send returns the answer to a request if it is one of success.
func (c *Cluster) send(ctx context.Context, method, path, contentType string, body any) (*http.Response, error) {
	var text bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Config.Host+path, &text)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 1000 // of the message
	message, _ := io.ReadAll(io.LimitReader(resp.Body, most))
	return nil, &StatusError{resp.StatusCode, fmt.Sprintf("apiserver: %s %s: %s: %s", method, path, resp.Status, message)}
}

// PodsPath returns the path of the pods of a namespace.
func PodsPath(namespace string) string { return "/api/v1/namespaces/" + namespace + "/pods" }

// Pods lists the pods of a namespace with some labels.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) (*corev1.PodList, error) {
	var list corev1.PodList
	err := c.Ask(ctx, http.MethodGet, PodsPath(namespace)+"?labelSelector="+url.QueryEscape(selector), nil, &list)
	return &list, err
}

// WatchPods calls a function with each state of the pods of a namespace with some labels, from
// a version of the list on, until it returns false.
func (c *Cluster) WatchPods(ctx context.Context, namespace, selector, version string, each func(pod *corev1.Pod, deleted bool) bool) error {
	path := PodsPath(namespace) + "?watch=true&resourceVersion=" + version + "&labelSelector=" + url.QueryEscape(selector)
	resp, err := c.send(ctx, http.MethodGet, path, "application/json", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	for events := json.NewDecoder(resp.Body); ; {
		var event struct {
			Type   string
			Object runtime.RawExtension
		}
		if err := events.Decode(&event); err != nil {
			return fmt.Errorf("apiserver: watch of pods: %w", err)
		}
		var pod corev1.Pod
		if err := json.Unmarshal(event.Object.Raw, &pod); err != nil || pod.Name == "" {
			return fmt.Errorf("apiserver: watch of pods: %s: %.300s", event.Type, event.Object.Raw)
		}
		if !each(&pod, event.Type == "DELETED") {
			return nil
		}
	}
}

// IsReady reports whether a pod is ready.
func IsReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}
