# The cluster's programs: one binary under several names (tools/cluster), built once for each state of its sources.
# Source it.

kubernetes_version() { sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' tools/cluster/go.mod; }

# programs prints the folder that has the programs, or is to have them.
programs() {
  local key
  key=$(cd tools/cluster && { go env GOVERSION GOARCH; cat go.mod go.sum main.go pause/main.go; } | sha256sum | cut -c 1-16)
  printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/vivarium-cluster/$key"
}

build() { build_once "$(programs)" cluster compile; }

# build_once has a function build a program into a folder, unless it is there. It waits for another build of the same,
# if one is under way.
build_once() {
  local folder=$1 program=$2 compile=$3
  mkdir -p "${folder%/*}"
  (
    flock 8
    [ -x "$folder/$program" ] || "$compile" "$folder"
  ) 8>"${folder%/*}/$program.lock"
}

compile() {
  local folder=$1 began=$SECONDS version flags
  version=$(kubernetes_version)
  flags="-s -w -X k8s.io/component-base/version.gitVersion=$version"
  flags+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version")"
  say "Building Kubernetes $version; this takes minutes."
  rm -rf "$folder.new"
  (cd tools/cluster && CGO_ENABLED=0 nice -n 10 go build -trimpath -ldflags "$flags" -o "$folder.new/" . ./pause)
  # Those of earlier sources are of no more use: a cluster that runs has its own.
  find "${folder%/*}" -mindepth 1 -maxdepth 1 -type d ! -name "${folder##*/}.new" ! -name 'agent-sandbox-*' -exec rm -rf {} +
  mv "$folder.new" "$folder"
  say "Kubernetes is built ($((SECONDS - began)) s)."
}

# place_programs gives the cluster its programs, which stay as they are while it runs.
place_programs() {
  local folder name
  [ ! -x "$root/bin/cluster" ] || return 0
  folder=$(programs)
  mkdir -p "$root/bin"
  cp "$folder/cluster" "$root/bin/cluster.new"
  cp "$folder/pause" "$root/bin/"
  for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    ln -sf cluster "$root/bin/$name"
  done
  mv "$root/bin/cluster.new" "$root/bin/cluster"
}
