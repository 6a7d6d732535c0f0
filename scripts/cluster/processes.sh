# Starting, watching and ending the cluster's processes. All of them, pods as well, are in a cgroup of the cluster's own.
# Source it.

# member reports whether a process is one of the cluster's parts.
member() { grep -qx "$1" "$home/daemons/cgroup.procs" 2>/dev/null; }

runs() { [ -e "$root/run/$1.pid" ] && member "$(cat "$root/run/$1.pid")"; }

# start starts a part, unless it runs: NAME COMMAND...
start() {
  local name=$1
  shift
  ! runs "$name" || return 0
  say "Starting $name."
  (
    echo "$BASHPID" >"$home/daemons/cgroup.procs"
    cd "$root"
    exec setsid "$@"
  ) >>"$root/log/$name.log" 2>&1 </dev/null &
  echo $! >"$root/run/$name.pid"
}

# await waits until a command succeeds, for two minutes: WHAT COMMAND... It fails as soon as a part has ended.
await() {
  local what=$1 deadline=$((SECONDS + 120)) name said
  shift
  until said=$("$@" 2>&1); do
    for name in "${parts[@]}"; do
      if [ -e "$root/run/$name.pid" ] && ! runs "$name"; then
        say "$name has ended. The end of $root/log/$name.log:"
        tail -n 20 "$root/log/$name.log" >&2
        exit 1
      fi
    done
    if [ $SECONDS -ge $deadline ]; then
      say "Waited 120 s for $what: $said"
      for name in "${parts[@]}"; do
        say "The end of $root/log/$name.log:"
        tail -n 8 "$root/log/$name.log" >&2 || true
      done
      exit 1
    fi
    sleep 0.2
  done
}

start_parts() {
  mkdir -p "$root/run" "$root/log/pods"
  # What has ended is started anew.
  local name
  for name in "${parts[@]}"; do runs "$name" || rm -f "$root/run/$name.pid"; done
  start containerd containerd --config "$root/config/containerd.toml"
  start_etcd
  start_apiserver
  await "the API server" kubectl get --raw /readyz
  start kube-controller-manager "$root/bin/kube-controller-manager" --kubeconfig="$root/kube-controller-manager.kubeconfig" \
    --leader-elect=false --bind-address=127.0.0.1 --use-service-account-credentials=true \
    --service-account-private-key-file="$root/keys/accounts.key" --root-ca-file="$root/keys/ca.crt" \
    --authentication-kubeconfig="$root/kube-controller-manager.kubeconfig" \
    --authorization-kubeconfig="$root/kube-controller-manager.kubeconfig" --cert-dir="$root/run/kube-controller-manager"
  start kube-scheduler "$root/bin/kube-scheduler" --kubeconfig="$root/kube-scheduler.kubeconfig" --leader-elect=false \
    --bind-address=127.0.0.1 --authentication-kubeconfig="$root/kube-scheduler.kubeconfig" \
    --authorization-kubeconfig="$root/kube-scheduler.kubeconfig" --cert-dir="$root/run/kube-scheduler"
  start kubelet "$root/bin/kubelet" --config="$root/config/kubelet.yaml" --kubeconfig="$root/kubelet.kubeconfig" \
    --root-dir="$root/kubelet" --cert-dir="$root/run/kubelet" --hostname-override="$node" --node-ip="$address"
  start kube-proxy "$root/bin/kube-proxy" --config="$root/config/kube-proxy.yaml"
}

# The cluster lives no longer than the machine runs, so nothing is forced to the disk.
start_etcd() {
  local url=http://127.0.0.1:12380
  start etcd "$root/bin/etcd" --data-dir="$root/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=https://127.0.0.1:12379 --advertise-client-urls=https://127.0.0.1:12379 \
    --cert-file="$root/keys/etcd.crt" --key-file="$root/keys/etcd.key" --trusted-ca-file="$root/keys/ca.crt" --client-cert-auth \
    --listen-peer-urls="$url" --initial-advertise-peer-urls="$url" --initial-cluster="default=$url"
}

start_apiserver() {
  start kube-apiserver "$root/bin/kube-apiserver" --bind-address="$address" --advertise-address="$address" --secure-port=6443 \
    --etcd-servers=https://127.0.0.1:12379 --etcd-cafile="$root/keys/ca.crt" --etcd-certfile="$root/keys/etcd.crt" \
    --etcd-keyfile="$root/keys/etcd.key" --tls-cert-file="$root/keys/kube-apiserver.crt" \
    --tls-private-key-file="$root/keys/kube-apiserver.key" --client-ca-file="$root/keys/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --service-cluster-ip-range="$services" --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$root/keys/accounts.pub" --service-account-signing-key-file="$root/keys/accounts.key" \
    --kubelet-certificate-authority="$root/keys/ca.crt" --kubelet-client-certificate="$root/keys/kubelet-client.crt" \
    --kubelet-client-key="$root/keys/kubelet-client.key" --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file="$root/config/audit.yaml" --audit-log-path="$root/log/audit.log" --audit-log-maxsize=200 \
    --audit-log-maxbackup=2 --cert-dir="$root/run/kube-apiserver"
}

# end_processes ends the kubelet first, which would start pods anew, and then all that is in the cluster's cgroup.
end_processes() {
  local left
  [ -d "$home" ] || return 0
  say "Ending the cluster's processes."
  if runs kubelet; then kill -KILL "$(cat "$root/run/kubelet.pid")"; fi
  for _ in $(seq 100); do
    left=$(find "$home" -name cgroup.procs -exec cat {} + 2>/dev/null || true)
    [ -n "$left" ] || return 0
    # shellcheck disable=SC2086 # one word a process
    kill -KILL $left 2>/dev/null || true
    sleep 0.1
  done
  say "These processes do not end: ${left//$'\n'/ }"
  exit 1
}
