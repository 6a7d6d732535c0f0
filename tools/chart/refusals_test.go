package chart

import (
	"strings"
	"testing"
)

// Values that would not work are refused, with what is wrong.
func TestRefusals(t *testing.T) {
	for values, want := range map[string]string{
		// By the schema
		"replicas=-1":                              "at '/replicas': minimum: got -1, want 0",
		"replicas=two":                             "at '/replicas': got string, want integer",
		"replica=2":                                "additional properties 'replica' not allowed",
		"image.tag=a b":                            "at '/image/tag'",
		"image.digest=sha256:12":                   "at '/image/digest'",
		"config.API_KEYS=secret":                   "at '/config': additional properties 'API_KEYS' not allowed",
		"config.EXECUTOR_BACKEND=docker":           "at '/config': additional properties 'EXECUTOR_BACKEND' not allowed",
		"config.MEMORY_LIMIT_MB=16":                "at '/config/MEMORY_LIMIT_MB': minimum: got 16, want 32",
		"config.MEMORY_LIMIT_MB=null":              "at '/config': missing property 'MEMORY_LIMIT_MB'",
		"config.LOG_LEVEL=loud":                    "at '/config/LOG_LEVEL': value must be one of",
		"config.PYTHON_EXECUTOR_DOCKER_NETWORK=br": "value must be one of 'none', 'pod'",
		"extraEnv.A-B=1":                           "at '/extraEnv'",
		"resources.requests.gpu=1":                 "at '/resources/requests'",
		"resources.limits.memory=much":             "at '/resources/limits/memory'",
		"sandboxes.free=0":                         "at '/sandboxes/free': minimum: got 0, want 1",
		"sandboxes.provider=pod":                   "at '/sandboxes/provider': value must be one of 'deployment', 'agent-sandbox'",
		"sandboxes.namespace=A_B":                  "at '/sandboxes/namespace'",
		"tolerations[0].effect=Never":              "at '/tolerations/0/effect': value must be one of",
		"seccomp.mode=off":                         "value must be one of 'localhost', 'self', 'default'",
		"seccomp.localhostProfile=../x.json":       "at '/seccomp/localhostProfile'",
		"networkPolicy.ingressFrom[0].pods=x":      "at '/networkPolicy/ingressFrom/0': additional properties 'pods' not allowed",
		"link.ca=x":                                "at '/link/ca'",
		"quota.hard.nodes=1":                       "at '/quota/hard'",
		"priorityClasses.sandbox=high":             "at '/priorityClasses/sandbox': got string, want integer",
		// By the templates
		"replicas=2":               "set config.FILE_STORAGE_URL or files.persistentVolumeClaim, or replicas=1",
		"autoscaling.enabled=true": "set config.FILE_STORAGE_URL or files.persistentVolumeClaim, or replicas=1",
		"config.FILE_STORAGE_URL=s3://b,files.persistentVolumeClaim=c":             "are both set",
		"autoscaling.minReplicas=11":                                               "autoscaling.minReplicas is more than autoscaling.maxReplicas",
		"sandboxes.namespace=vivarium":                                             "must not be the release's own namespace",
		"sandboxes.memoryRequestMB=577":                                            "sandboxes.memoryRequestMB is 577: must be at most 576",
		"config.WORKSPACE_LIMIT_MB=513":                                            "config.WORKSPACE_LIMIT_MB is 513: must be at most config.MEMORY_LIMIT_MB, which is 512",
		"config.TMP_LIMIT_MB=513":                                                  "config.TMP_LIMIT_MB is 513: must be at most config.MEMORY_LIMIT_MB, which is 512",
		"seccomp.mode=default":                                                     "Set networkPolicy.policyOnly=true",
		"networkPolicy.policyOnly=true,config.PYTHON_EXECUTOR_DOCKER_NETWORK=none": "contradict each other",
		"networkPolicy.policyOnly=true,networkPolicy.enabled=false":                "networkPolicy.policyOnly needs networkPolicy.enabled",
		"networkPolicy.sandboxEgress[0].ports[0].port=443":                         "has no effect unless config.PYTHON_EXECUTOR_DOCKER_NETWORK is pod",
		"seccomp.localhostProfile=a/b.json":                                        "its file must be sandbox.json",
		"ingress.enabled=true":                                                     "ingress.host: required",
		"link.existingSecret=a":                                                    "link.ca: required, since there is no Secret a",
		"link.certManager.issuer=a":                                                "link.ca: required with link.certManager.issuer",
		"link.existingSecret=a,link.certManager.issuer=b":                          "are both set",
		"placeholders.replicas=1,priorityClasses.create=false":                     "placeholders.priorityClassName: required",
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			_, problems, failed := template(t, "--set", "replicas=1", "--set", values)
			if !failed || !strings.Contains(problems, want) {
				t.Errorf("got %v, %s\nwant %s", failed, problems, want)
			}
		})
	}
}
