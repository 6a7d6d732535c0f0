#!/usr/bin/env bash
# A Kubernetes cluster of one node on this machine, for tests: as root on Debian or Ubuntu. It is built from source,
# runs beside an engine, and all that it has is in one folder, CLUSTER_DIR (/var/lib/vivarium-cluster).
#
#   cluster.sh build           builds its programs, unless ~/.cache/vivarium-cluster has them
#   cluster.sh up              starts what does not run yet, and waits until the node is ready
#   cluster.sh images IMAGE... gives it images of this machine's engine
#   cluster.sh agent-sandbox   starts the controller of agent-sandbox too, and builds it the first time
#   cluster.sh smoke           tests it with a hardened pod of the image vivarium/sandbox:slim
#   cluster.sh kubectl ...     asks it something, as its administrator
#   cluster.sh status          prints where things are; fails unless all of it runs
#   cluster.sh down            ends it and leaves nothing behind
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

root=${CLUSTER_DIR:-/var/lib/vivarium-cluster}
case $root in /*[!/]) ;; *) say "CLUSTER_DIR is $root: must be an absolute path of a folder of its own"; exit 1 ;; esac
node=vivarium
# The node's own address: nothing listens on the machine's others.
address=10.97.0.1
services=10.98.0.0/16
pods=10.99.0.0/16
parts=(etcd containerd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)

# shellcheck source=scripts/cluster/build.sh
. scripts/cluster/build.sh
# shellcheck source=scripts/cluster/keys.sh
. scripts/cluster/keys.sh
# shellcheck source=scripts/cluster/config.sh
. scripts/cluster/config.sh
# shellcheck source=scripts/cluster/host.sh
. scripts/cluster/host.sh
# shellcheck source=scripts/cluster/processes.sh
. scripts/cluster/processes.sh
# shellcheck source=scripts/cluster/images.sh
. scripts/cluster/images.sh
# shellcheck source=scripts/cluster/agent.sh
. scripts/cluster/agent.sh
# shellcheck source=scripts/cluster/smoke.sh
. scripts/cluster/smoke.sh

kubectl() { "$root/bin/kubectl" --kubeconfig "$root/admin.kubeconfig" "$@"; }

up() {
  local began=$SECONDS
  need_packages
  build
  mkdir -p "$root"
  after_reboot
  place_programs
  prepare_host
  make_keys
  write_configuration
  start_parts
  import_pause
  await "the node" kubectl wait --for=condition=Ready --timeout=2s "node/$node"
  await "the default service account" kubectl get serviceaccount default
  say "The cluster is up ($((SECONDS - began)) s)."
  status
}

down() {
  local began=$SECONDS
  end_processes
  restore_host
  say "The cluster is down ($((SECONDS - began)) s)."
}

status() {
  local name failed=0
  [ ! -e "$root/run/agent-sandbox.pid" ] || parts+=(agent-sandbox)
  for name in "${parts[@]}"; do
    if runs "$name"; then printf '%-24s pid %s\n' "$name" "$(cat "$root/run/$name.pid")"; else
      printf '%-24s does not run\n' "$name"
      failed=1
    fi
  done
  [ -d "$root" ] || return 1
  cat <<END
kubeconfig               $root/admin.kubeconfig
kubectl                  $root/bin/kubectl
node                     $node, $address
seccomp profiles         /var/lib/kubelet/seccomp
logs of pods             $root/log/pods
audit log                $root/log/audit.log
logs of the parts        $root/log/*.log
containerd               $root/run/containerd.sock
END
  [ $failed = 0 ] && kubectl get nodes || failed=1
  return $failed
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
  build) build ;;
  up | images | agent-sandbox | smoke | down)
    [ "$(id -u)" = 0 ] || { say "cluster.sh $command needs root."; exit 1; }
    exec 9>"/run/lock/vivarium-cluster"
    flock 9
    "${command//-/_}" "$@" 9>&-
    ;;
  kubectl | status) "$command" "$@" ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
