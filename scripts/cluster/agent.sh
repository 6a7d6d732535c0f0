# The controller of agent-sandbox (tools/agentsandbox), for KUBERNETES_PROVIDER=agent-sandbox. Source it.

agent_module=sigs.k8s.io/agent-sandbox

# agent_programs prints the folder that has the controller, or is to have it.
agent_programs() {
  local key
  key=$(cd tools/agentsandbox && { go env GOVERSION GOARCH; cat go.mod go.sum; } | sha256sum | cut -c 1-16)
  printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/vivarium-cluster/agent-sandbox-$key"
}

build_agent() { build_once "$(agent_programs)" agent-sandbox-controller compile_agent; }

compile_agent() {
  local folder=$1 began=$SECONDS
  say "Building the controller of agent-sandbox; this takes minutes."
  rm -rf "$folder.new"
  (cd tools/agentsandbox && nice -n 10 go build -trimpath -ldflags '-s -w' -o "$folder.new/" \
    $agent_module/cmd/agent-sandbox-controller)
  find "${folder%/*}" -mindepth 1 -maxdepth 1 -type d -name 'agent-sandbox-*' ! -name "${folder##*/}.new" -exec rm -rf {} +
  mv "$folder.new" "$folder"
  say "The controller is built ($((SECONDS - began)) s)."
}

# agent_sandbox has the cluster, which must be up, know agent-sandbox: its kinds of objects, and its controller as a
# process of this machine. Of each kind one version is served, so that it needs no webhook. down ends it.
agent_sandbox() {
  local name=agent-sandbox module
  build_agent
  runs kube-apiserver || { say "The cluster is not up: scripts/cluster.sh up"; exit 1; }
  parts+=("$name")
  module=$(cd tools/agentsandbox && go list -m -f '{{.Dir}}' $agent_module)
  kubectl apply --server-side -f "$module/k8s/crds"
  kubectl wait --for=condition=Established --timeout=60s -f "$module/k8s/crds"
  if ! runs "$name"; then
    rm -f "$root/run/$name.pid"
    cp "$(agent_programs)/agent-sandbox-controller" "$root/bin/"
    start "$name" "$root/bin/agent-sandbox-controller" --kubeconfig="$root/admin.kubeconfig" --extensions --leader-elect=false \
      --metrics-bind-address=0 --health-probe-bind-address=127.0.0.1:18081
  fi
  await "the controller of agent-sandbox" agent_ready
}

agent_ready() {
  exec 3<>/dev/tcp/127.0.0.1/18081 || return 1
  printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
  grep -q '200 OK' <&3
}
