# What the cluster changes on the machine outside of its folder, and how that is undone. Source it.

# Another name than those of the local backend, which removes the empty ones of its own.
cgroup=kubernetes-vivarium
# The sysctls that the kubelet sets, and the one that routes between pods.
sysctls=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys
  kernel.keys.root_maxbytes net.ipv4.ip_forward)

# What the kubelet and containerd have outside of their folders whatever their settings, and where others look for
# seccomp profiles.
declare -A links=([/var/lib/kubelet]=kubelet [/var/log/containers]=log/containers [/var/lib/cni]=cni/results)

# hierarchies prints where cgroups can be made: one folder with version 2, one for each controller with version 1.
hierarchies() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else
    awk '$3 ~ /^cgroup2?$/ && $2 ~ /^\/sys\/fs\/cgroup\// { print $2 }' /proc/mounts
  fi
}

# In one hierarchy the cgroup has the parts and their shims too, so that whoever is in it is the cluster's.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then home=/sys/fs/cgroup/$cgroup; else home=/sys/fs/cgroup/pids/$cgroup; fi

need_packages() {
  local missing=() pair
  for pair in containerd:containerd runc:runc iptables:iptables ip:iproute2 openssl:openssl /usr/lib/cni/ptp:containernetworking-plugins; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  debian_root || { say "The cluster needs ${missing[*]}."; exit 1; }
  install_packages "${missing[@]}"
}

# after_reboot forgets a cluster of before the machine was started: its mounts and processes are gone.
after_reboot() {
  local boot
  boot=$(cat /proc/sys/kernel/random/boot_id)
  if [ -e "$root/boot" ] && [ "$(cat "$root/boot")" != "$boot" ]; then
    say "The machine was started anew: the cluster begins anew too."
    end_processes
    restore_host
    mkdir -p "$root"
  fi
  echo "$boot" >"$root/boot"
}

prepare_host() {
  local name hierarchy
  if [ ! -e "$root/sysctls" ]; then
    for name in "${sysctls[@]}"; do echo "$name $(cat "/proc/sys/${name//./\/}")"; done >"$root/sysctls.new"
    mv "$root/sysctls.new" "$root/sysctls"
  fi
  for hierarchy in $(hierarchies); do mkdir -p "$hierarchy/$cgroup"; done
  mkdir -p "$home/daemons" "$root/kubelet/seccomp" "$root/cni/results" "$root/log/containers"
  for name in "${!links[@]}"; do link "$name" "$root/${links[$name]}"; done
  ip link show vivarium0 >/dev/null 2>&1 || ip link add vivarium0 type bridge
  ip address replace "$address/32" dev vivarium0
  ip link set vivarium0 up
  echo 1 >/proc/sys/net/ipv4/ip_forward
  open_forwarding
}

# link makes a symbolic link: NAME TARGET.
link() {
  if [ "$(readlink "$1")" = "$2" ]; then return; fi
  # A folder without contents is one that an earlier kubelet left.
  if [ -e "$1" ] && ! rmdir "$1" 2>/dev/null; then
    say "$1 is there already: another kubelet's, or that of a cluster in another folder."
    exit 1
  fi
  rm -f "$1"
  ln -s "$2" "$1"
}

# open_forwarding lets pods talk to each other, where an engine has closed the way, and to nobody behind the machine.
open_forwarding() {
  iptables -w -N VIVARIUM-CLUSTER 2>/dev/null || iptables -w -F VIVARIUM-CLUSTER
  iptables -w -A VIVARIUM-CLUSTER -s "$pods" -d "$pods" -j ACCEPT
  iptables -w -A VIVARIUM-CLUSTER -s "$pods" -j REJECT
  iptables -w -A VIVARIUM-CLUSTER -d "$pods" -j REJECT
  iptables -w -C FORWARD -j VIVARIUM-CLUSTER 2>/dev/null || iptables -w -I FORWARD -j VIVARIUM-CLUSTER
}

restore_host() {
  local hierarchy mount name
  awk '{ print $2 }' /proc/mounts | { grep "^$root/" || true; } | sort -r | while read -r mount; do umount -l "$mount"; done
  remove_rules
  ip link delete vivarium0 2>/dev/null || true
  for hierarchy in $(hierarchies); do remove_cgroup "$hierarchy/$cgroup"; done
  restore_sysctls
  for name in "${!links[@]}"; do
    case $(readlink "$name") in "$root"/*) rm -f "$name" ;; esac
  done
  remove_sockets
  rm -rf --one-file-system "$root"
}

# remove_rules removes the chains of the cluster and of kube-proxy, and what refers to them; it touches no others.
remove_rules() {
  local tables table rules ours='(KUBE-|VIVARIUM-CLUSTER)'
  for tables in iptables ip6tables; do
    for table in filter nat mangle; do
      rules=$("$tables-save" -t "$table" | grep -E "$ours" || true)
      [ -n "$rules" ] || continue
      {
        echo "*$table"
        sed -nE "s/^:($ours[^ ]*) .*/-F \\1/p" <<<"$rules"
        sed -nE "/^-A $ours/d; s/^-A /-D /p" <<<"$rules"
        sed -nE "s/^:($ours[^ ]*) .*/-X \\1/p" <<<"$rules"
        echo COMMIT
      } | "$tables-restore" -w --noflush
    done
  done
}

# A cgroup whose last process has just ended may be busy for a moment.
remove_cgroup() {
  for _ in $(seq 50); do
    [ -d "$1" ] || return 0
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ ! -d "$1" ] || sleep 0.1
  done
  [ ! -d "$1" ] || say "$1 cannot be removed."
}

restore_sysctls() {
  local name value
  [ -e "$root/sysctls" ] || return 0
  while read -r name value; do
    # An engine that was started since needs this one.
    if [ "$name" = net.ipv4.ip_forward ] && ip link show docker0 >/dev/null 2>&1; then continue; fi
    echo "$value" >"/proc/sys/${name//./\/}"
  done <"$root/sysctls"
}

# remove_sockets removes what shims that were killed have left: sockets that nobody has open.
remove_sockets() {
  local socket
  for socket in /run/containerd/s/*; do
    [ -S "$socket" ] || continue
    grep -qF "$socket" /proc/net/unix || rm -f "$socket"
  done
  rmdir /run/containerd/s /run/containerd 2>/dev/null || true
}
