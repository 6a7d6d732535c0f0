{{- define "vivarium.keysSecret" -}}
{{ .Values.secrets.existingSecret | default (printf "%s-keys" (include "vivarium.name" .)) }}
{{- end }}

{{/* An annotation that changes when the keys in the user's Secret do, since servers read them at the start. Where the chart
     cannot ask the cluster there is none. */}}
{{- define "vivarium.keysVersion" -}}
{{- with .Values.secrets.existingSecret -}}
{{- with lookup "v1" "Secret" $.Release.Namespace . -}}
vivarium.dev/keys: {{ .data | toJson | sha256sum | trunc 16 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The variables of a server. Those that the template of the pool depends on are always there, so that both agree. */}}
{{- define "vivarium.environment" -}}
{{- $settings := deepCopy .Values.config -}}
{{- $_ := set $settings "WORKSPACE_LIMIT_MB" (include "vivarium.workspaceMB" .) -}}
{{- $_ := set $settings "TMP_LIMIT_MB" (include "vivarium.tmpMB" .) -}}
{{- $_ := set $settings "PYTHON_EXECUTOR_DOCKER_NETWORK" (include "vivarium.network" .) -}}
{{- if and .Values.ingress.enabled (not $settings.PUBLIC_URL) (not $settings.ALLOWED_HOSTS) -}}
{{- $_ := set $settings "PUBLIC_URL" (printf "%s://%s" (ternary "https" "http" (ne .Values.ingress.tlsSecret "")) .Values.ingress.host) -}}
{{- end -}}
{{- $_ := set $settings "EXECUTOR_BACKEND" "kubernetes" -}}
{{- $_ := set $settings "KUBERNETES_EXECUTOR_NAMESPACE" (include "vivarium.sandboxes" .) -}}
{{- $_ := set $settings "KUBERNETES_POOL" (printf "%s-sandboxes" (include "vivarium.name" .)) -}}
{{- if ne .Values.sandboxes.provider "deployment" -}}
{{- $_ := set $settings "KUBERNETES_PROVIDER" .Values.sandboxes.provider -}}
{{- end -}}
{{- $_ := set $settings "KUBERNETES_EXECUTOR_IMAGE" (include "vivarium.sandboxImage" .) -}}
{{- $_ := set $settings "PEER_PORT" "8001" -}}
{{- range $name, $value := .Values.extraEnv -}}
{{- $_ := set $settings $name $value -}}
{{- end -}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ include "vivarium.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
