{{/* The name of what the chart makes. */}}
{{- define "vivarium.name" -}}
{{- if contains "vivarium" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-vivarium" (.Release.Name | trunc 31 | trimSuffix "-") }}{{- end -}}
{{- end }}

{{/* The namespace of sandboxes. It is never the servers' own: that has their secrets. */}}
{{- define "vivarium.sandboxes" -}}
{{- $namespace := .Values.sandboxes.namespace | default (printf "%s-sandboxes" .Release.Namespace) -}}
{{- if eq $namespace .Release.Namespace -}}
{{- fail (printf "sandboxes.namespace is %s: must not be the release's own namespace, which has the servers' secrets" $namespace) -}}
{{- end -}}
{{- $namespace -}}
{{- end }}

{{/* Cluster-wide names have the namespace in front. */}}
{{- define "vivarium.clusterName" -}}
{{ .Release.Namespace }}-{{ include "vivarium.name" . }}
{{- end }}

{{- define "vivarium.selector" -}}
app.kubernetes.io/name: vivarium
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "vivarium.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: vivarium
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The labels by which other objects find the pods of the pool, claimed or not. */}}
{{- define "vivarium.pool" -}}
vivarium.dev/pool: {{ include "vivarium.name" . }}
{{- end }}

{{/* The reference of an image. The argument is [repository tag digest]. */}}
{{- define "vivarium.image" -}}
{{- $repository := index . 0 -}}{{- $tag := index . 1 -}}{{- $digest := index . 2 -}}
{{- if $digest -}}{{ $repository }}@{{ $digest }}{{- else -}}{{ $repository }}:{{ $tag }}{{- end -}}
{{- end }}

{{- define "vivarium.serverImage" -}}
{{- $image := .Values.image -}}
{{- include "vivarium.image" (list $image.repository ($image.tag | default .Chart.AppVersion) $image.digest) -}}
{{- end }}

{{- define "vivarium.sandboxImage" -}}
{{- $image := .Values.sandboxes.image -}}
{{- include "vivarium.image" (list $image.repository $image.tag $image.digest) -}}
{{- end }}

{{/* The network of programs. Where they have none of their own, it is that of their pod, which policies close. */}}
{{- define "vivarium.network" -}}
{{- .Values.config.PYTHON_EXECUTOR_DOCKER_NETWORK | default (ternary "pod" "none" .Values.networkPolicy.policyOnly) -}}
{{- end }}

{{/* A value as text. YAML's numbers are floating point, which would print a million as 1e+06. */}}
{{- define "vivarium.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end }}

{{/* Whole megabytes of the sandboxes' memory and folders: the rules of docs/settings.md. */}}
{{- define "vivarium.memoryMB" -}}{{ int64 .Values.config.MEMORY_LIMIT_MB }}{{- end }}
{{- define "vivarium.workspaceMB" -}}
{{- $memory := int64 .Values.config.MEMORY_LIMIT_MB -}}
{{- int64 (.Values.config.WORKSPACE_LIMIT_MB | default (min $memory (max (div $memory 2) (int64 (.Values.config.MAX_FILE_SIZE_MB | default 100))))) -}}
{{- end }}
{{- define "vivarium.tmpMB" -}}
{{- $memory := int64 .Values.config.MEMORY_LIMIT_MB -}}
{{- int64 (.Values.config.TMP_LIMIT_MB | default (min $memory (max (div $memory 4) 64))) -}}
{{- end }}

{{/* What a pod of a sandbox may use: 64 MB more than programs, since the kernel would end PID 1 too. */}}
{{- define "vivarium.sandboxResources" -}}
{{- $memory := add (include "vivarium.memoryMB" .) 64 -}}
{{- $cpu := include "vivarium.text" .Values.config.CPU_LIMIT -}}
{{- $request := int64 .Values.sandboxes.memoryRequestMB -}}
{{- if gt $request $memory -}}
{{- fail (printf "sandboxes.memoryRequestMB is %d: must be at most %d, which is config.MEMORY_LIMIT_MB and 64" $request $memory) -}}
{{- end -}}
{{- $disk := int64 .Values.sandboxes.diskLimitMB -}}
requests: {cpu: {{ .Values.sandboxes.cpuRequest }}, memory: {{ $request | default $memory }}Mi{{ if $disk }}, ephemeral-storage: {{ min $disk 16 }}Mi{{ end }}}
limits: {cpu: {{ $cpu | quote }}, memory: {{ $memory }}Mi{{ if $disk }}, ephemeral-storage: {{ $disk }}Mi{{ end }}}
{{- end }}

{{/* The walls of every container: what the Pod Security level "restricted" asks for, and more. */}}
{{- define "vivarium.walls" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "vivarium.seccompProfile" -}}
{{- $seccomp := .Values.seccomp -}}
{{- if eq $seccomp.mode "localhost" -}}{type: Localhost, localhostProfile: {{ $seccomp.localhostProfile }}}
{{- else if eq $seccomp.mode "self" -}}{type: Unconfined}
{{- else -}}{type: RuntimeDefault}{{- end -}}
{{- end }}

{{/* Where the pods of sandboxes, and what prepares their nodes, may be. */}}
{{- define "vivarium.sandboxNodes" -}}
{{- with .Values.sandboxes.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.sandboxes.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "vivarium.pullSecrets" -}}
{{- with . }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "vivarium.linkSecret" -}}
{{ .Values.link.existingSecret | default (printf "%s-link" (include "vivarium.name" .)) }}
{{- end }}

{{- define "vivarium.sandboxPriority" -}}
{{- if .Values.sandboxes.priorityClassName -}}{{ .Values.sandboxes.priorityClassName }}
{{- else if .Values.priorityClasses.create -}}{{ include "vivarium.clusterName" . }}-sandbox{{- end -}}
{{- end }}

{{- define "vivarium.placeholderPriority" -}}
{{- if .Values.placeholders.priorityClassName -}}{{ .Values.placeholders.priorityClassName }}
{{- else if .Values.priorityClasses.create -}}{{ include "vivarium.clusterName" . }}-placeholder
{{- else -}}{{ fail "placeholders.priorityClassName: required without priorityClasses.create, since other pods could not take a placeholder's room" }}
{{- end -}}
{{- end }}
