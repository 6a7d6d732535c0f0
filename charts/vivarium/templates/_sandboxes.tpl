{{/* The pods of sandboxes: their specification. The argument has the root, and ca, what PID 1 trusts. */}}
{{- define "vivarium.sandboxSpec" -}}
{{- $ca := .ca }}
{{- with .root -}}
serviceAccountName: {{ include "vivarium.name" . }}-sandbox
automountServiceAccountToken: false
enableServiceLinks: false
{{- if .Values.sandboxes.userNamespaces }}
hostUsers: false
{{- end }}
hostname: sandbox
{{- if or .Values.networkPolicy.policyOnly (eq (include "vivarium.network" .) "none") }}
dnsPolicy: None
dnsConfig: {nameservers: ["127.0.0.1"]}
{{- end }}
{{- if eq .Values.sandboxes.provider "agent-sandbox" }}
restartPolicy: Never # a claim ends when its pod does
{{- else }}
restartPolicy: Always # a ReplicaSet takes no other; a restarted sandbox has lost its key and ends
{{- end }}
terminationGracePeriodSeconds: 30
{{- with include "vivarium.sandboxPriority" . }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.sandboxes.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with include "vivarium.pullSecrets" .Values.sandboxes.imagePullSecrets }}{{ trim . | nindent 0 }}{{ end }}
{{- with .Values.sandboxes.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  {{- with .Values.sandboxes.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  # A sandbox on a lost node is lost: its successor need not wait for five minutes.
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
topologySpreadConstraints:
  - maxSkew: 5
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "vivarium.pool" . | nindent 8 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {{ include "vivarium.seccompProfile" . }}
initContainers:
  - name: identity
    image: {{ include "vivarium.serverImage" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [kubernetes, pod-init, /workspace/.vivarium-link, /run/vivarium]
    env: # what it prepares depends on these settings of servers
      - {name: PYTHON_EXECUTOR_DOCKER_NETWORK, value: {{ include "vivarium.network" . | quote }}}
      {{- $settings := mergeOverwrite (deepCopy .Values.config) .Values.extraEnv }}
      {{- range list "ISOLATION" "MEMORY_LIMIT_MB" "PIDS_LIMIT" "PRELOAD_MODULES" "PTY_LIMIT" }}
      {{- $value := get $settings . }}
      {{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
      - {name: {{ . }}, value: {{ include "vivarium.text" $value | quote }}}
      {{- end }}
      {{- end }}
    securityContext: {{- include "vivarium.walls" . | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 32Mi}
      limits: {cpu: {{ include "vivarium.text" .Values.config.CPU_LIMIT | quote }}, memory: 64Mi}
    volumeMounts:
      - {name: workspace, mountPath: /workspace}
      - {name: link, mountPath: /run/vivarium}
containers:
  - name: sandbox
    image: {{ include "vivarium.sandboxImage" . }}
    imagePullPolicy: {{ .Values.sandboxes.image.pullPolicy }}
    {{- $sandbox := .Files.Get "files/sandbox.json" | fromJson }}
    command: {{ $sandbox.command | toJson }}
    workingDir: /workspace
    env:
      {{- range $sandbox.environment }}
      {{- $pair := splitn "=" 2 . }}
      - {name: {{ $pair._0 }}, value: {{ $pair._1 | quote }}}
      {{- end }}
      {{- if eq (include "vivarium.network" .) "pod" }}
      - {name: VIVARIUM_LINK_NETWORK, value: pod}
      {{- end }}
      - name: VIVARIUM_LINK_CA
        value: |-
          {{- $ca | trim | nindent 10 }}
    ports:
      - {name: link, containerPort: 7443}
    # Everyone may write the file, and it is on the node's disk: so it is in a folder that programs cannot enter.
    terminationMessagePath: /root/.vivarium
    terminationMessagePolicy: FallbackToLogsOnError
    securityContext: {{- include "vivarium.walls" . | nindent 6 }}
    resources: {{- include "vivarium.sandboxResources" . | nindent 6 }}
    volumeMounts:
      - {name: workspace, mountPath: /workspace}
      - {name: tmp, mountPath: /tmp}
      - {name: shm, mountPath: /dev/shm}
      - {name: link, mountPath: /run/vivarium, readOnly: true}
      {{- if ne (include "vivarium.network" .) "pod" }}
      # The kubelet's would give the sandbox's name the pod's address, which is not in the sandbox's own network.
      - {name: link, mountPath: /etc/hosts, subPath: hosts, readOnly: true}
      {{- end }}
volumes:
  - name: link # the program of PID 1; a container that is restarted executes it again, so no program may write it
    emptyDir: {sizeLimit: 1Mi}
  - name: workspace
    emptyDir: {medium: Memory, sizeLimit: {{ include "vivarium.workspaceMB" . }}Mi}
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: {{ include "vivarium.tmpMB" . }}Mi}
  - name: shm # for semaphores, and for arrays that processes share
    emptyDir: {medium: Memory, sizeLimit: {{ max 16 (div (include "vivarium.memoryMB" .) 4) }}Mi}
{{- end }}
{{- end }}

{{- define "vivarium.sandboxLabels" -}}
app.kubernetes.io/name: vivarium-sandbox
{{ include "vivarium.pool" . }}
{{- end }}
