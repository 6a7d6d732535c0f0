package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

func parse(text []byte) object {
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		panic(err)
	}
	return o
}

// clone returns a copy, with numbers and lists as JSON has them.
func clone(o object) object {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return parse(text)
}

func meta(o object) object   { return o["metadata"].(object) }
func status(o object) object { return o["status"].(object) }
func nameOf(o object) string { return meta(o)["name"].(string) }
func notes(o object) object  { return meta(o)["annotations"].(object) }
func rawLabels(o object) object {
	found, _ := meta(o)["labels"].(object)
	return found
}

func label(o object, name string) string {
	value, _ := rawLabels(o)["vivarium.dev/"+name].(string)
	return value
}

func labelsOf(o object) labels.Set {
	set := labels.Set{}
	for name, value := range rawLabels(o) {
		set[name] = fmt.Sprint(value)
	}
	return set
}

// ip returns the address of a pod.
func ip(o object) string {
	ips, _ := status(o)["podIPs"].([]any)
	if len(ips) == 0 {
		return ""
	}
	return ips[0].(object)["ip"].(string)
}

// terminated returns the end of a pod's init container.
func terminated(o object) object {
	return status(o)["initContainerStatuses"].([]any)[0].(object)["state"].(object)["terminated"].(object)
}

// pinOf returns the pin of a pod's key.
func pinOf(name string) string {
	h := fnv.New64()
	_, _ = h.Write([]byte(name))
	return fmt.Sprintf("sha256:%064x", h.Sum64())
}

// blank returns a blank pod that is ready.
func blank(name string) object {
	h := fnv.New32()
	_, _ = h.Write([]byte(name))
	sum := h.Sum32()
	facts := fmt.Sprintf(`{"v":1,"key":%q,"kernel":"6.8.0","arch":"amd64","userns":true,"netns":true,"seccomp":true,"cgroup":2,"oomgroup":true}`, pinOf(name))
	now := time.Now().UTC().Format(time.RFC3339)
	return clone(object{
		"kind": "Pod", "apiVersion": "v1",
		"metadata": object{
			"name": name, "namespace": "boxes", "uid": "uid-" + name, "creationTimestamp": now,
			"labels":      object{"vivarium.dev/pool": "zoo", "vivarium.dev/state": "free", "pod-template-hash": "h1"},
			"annotations": object{"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"},
			"ownerReferences": []any{object{
				"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "blanks-h1", "uid": "rs", "controller": true,
			}},
		},
		"spec": object{"containers": []any{object{"name": "sandbox", "image": "image"}}},
		"status": object{
			"phase": "Running", "startTime": now,
			"podIPs":     []any{object{"ip": fmt.Sprintf("10.%d.%d.%d", sum>>16&255, sum>>8&255, sum&255)}},
			"conditions": []any{object{"type": "Ready", "status": "True"}},
			"initContainerStatuses": []any{object{
				"name": "identity", "state": object{"terminated": object{"exitCode": 0, "message": facts}},
			}},
			"containerStatuses": []any{object{"name": "sandbox", "ready": true, "restartCount": 0, "state": object{"running": object{}}}},
		},
	})
}

// deployment returns a Deployment that fits settings.
func deployment() object {
	memory := func(name, size string) object {
		return object{"name": name, "emptyDir": object{"medium": "Memory", "sizeLimit": size}}
	}
	return clone(object{
		"kind": "Deployment", "apiVersion": "apps/v1",
		"metadata": object{"name": "blanks", "namespace": "boxes", "uid": "deployment-uid"},
		"spec": object{
			"replicas": 4,
			"selector": object{"matchLabels": object{"vivarium.dev/pool": "zoo", "vivarium.dev/state": "free"}},
			"template": object{"spec": object{
				"automountServiceAccountToken": false,
				"initContainers":               []any{object{"name": "identity", "image": "server"}},
				"containers": []any{object{
					"name": "sandbox", "image": "sandbox@sha256:1", "ports": []any{object{"containerPort": 7443}},
					"resources": object{"limits": object{"memory": "320Mi", "cpu": "1"}},
					"volumeMounts": []any{
						object{"name": "workspace", "mountPath": "/workspace"}, object{"name": "tmp", "mountPath": "/tmp"}, object{"name": "shm", "mountPath": "/dev/shm"},
					},
				}},
				"volumes": []any{memory("workspace", "128Mi"), memory("tmp", "64Mi"), memory("shm", "16Mi")},
			}},
		},
		"status": object{},
	})
}

// session returns a pod of a session.
func session(name, id, holder string) object {
	o := blank(name)
	now := time.Now()
	for k, v := range map[string]string{"state": "session", "session": id, "holder": holder} {
		rawLabels(o)["vivarium.dev/"+k] = v
	}
	for k, v := range map[string]any{
		"key": pinOf(name), "owner": "anna", "created": now.UnixMilli(), "expires": now.Add(time.Hour).UnixMilli(),
		"latest": now.Add(2 * time.Hour).UnixMilli(), "idle": time.Hour.Milliseconds(),
	} {
		notes(o)["vivarium.dev/"+k] = fmt.Sprint(v)
	}
	return clone(o)
}

// lease returns the Lease of a server, renewed some time ago.
func lease(instance string, ago time.Duration) object {
	return clone(object{
		"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
		"metadata": object{
			"name": "vivarium-" + instance, "namespace": "boxes", "labels": object{"vivarium.dev/pool": "zoo"},
			"annotations": object{"vivarium.dev/peer": instance + ":8001"},
		},
		"spec": object{
			"holderIdentity": instance, "leaseDurationSeconds": 30,
			"renewTime": time.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05.000000Z07:00"),
		},
	})
}
