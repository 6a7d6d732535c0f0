# The parts' configuration files. Source it.

write_configuration() {
  mkdir -p "$root/config" "$root/cni"
  put config/containerd.toml containerd_configuration
  put cni/10-pods.conflist network_configuration
  put config/kubelet.yaml kubelet_configuration
  put config/kube-proxy.yaml proxy_configuration
  put config/audit.yaml audit_policy
}

# put writes what a command prints to a file, unless the file has it: kube-proxy ends when its file is written.
put() {
  "$2" >"$root/config/new"
  cmp -s "$root/config/new" "$root/$1" || mv "$root/config/new" "$root/$1"
}

# The engine's containerd, and the system's, have other folders and other sockets. restrict_oom_score_adj is for
# machines without CAP_SYS_RESOURCE.
containerd_configuration() {
  cat <<END
version = 2
root = "$root/containerd/root"
state = "$root/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$root/run/containerd.sock"
[ttrpc]
  address = "$root/run/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "$root/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause_image"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "$root/containerd/runc"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$root/cni"
END
}

# Pods reach the machine and each other, and the machine reaches them.
network_configuration() {
  cat <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pods"}]],
    "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$root/cni/addresses"}}]}
END
}

# The machine's disk is not the cluster's alone: how full it is evicts no pods and removes no images.
kubelet_configuration() {
  cat <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $root/keys/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $root/keys/kubelet-server.crt
tlsPrivateKeyFile: $root/keys/kubelet-server.key
healthzBindAddress: 127.0.0.1
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
evictionHard: {memory.available: 100Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}
imageGCHighThresholdPercent: 100
maxPods: 500
kubeAPIQPS: 500
kubeAPIBurst: 1000
containerRuntimeEndpoint: unix://$root/run/containerd.sock
resolvConf: /etc/resolv.conf
podLogsDir: $root/log/pods
volumePluginDir: $root/kubelet/plugins
END
}

# It leaves the machine's own sysctls alone.
proxy_configuration() {
  cat <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $node
clusterCIDR: $pods
detectLocalMode: ClusterCIDR
clientConnection: {kubeconfig: $root/kube-proxy.kubeconfig}
bindAddress: $address
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
iptables: {localhostNodePorts: false}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
}

# Who asked what, by whom and with which user agent: of all but the cluster's own parts.
audit_policy() {
  cat <<END
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ["system:nodes", "system:serviceaccounts:kube-system"]}
- {level: None, users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:anonymous"]}
- {level: Metadata}
END
}
