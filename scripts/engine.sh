#!/usr/bin/env bash
# Makes sure that a Docker Engine answers: where none does, installs and starts
# one, as root on Debian or Ubuntu; elsewhere says what to do. It needs
# bin/vivarium.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

answers() { ./bin/vivarium doctor --engine >/dev/null 2>&1; }

# A container or a small virtual machine may come without cgroups.
mount_cgroups() {
  mountpoint -q /sys/fs/cgroup && return
  say "Mounting cgroups."
  if grep -qw cgroup2 /proc/filesystems && mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null; then return; fi
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  for name in $(awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups); do
    mkdir -p "/sys/fs/cgroup/$name" && mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" || rmdir "/sys/fs/cgroup/$name"
  done
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    say "Starting dockerd; its log is /var/log/vivarium-dockerd.log."
    setsid nohup dockerd >/var/log/vivarium-dockerd.log 2>&1 </dev/null &
  fi
  for _ in $(seq 120); do
    if answers; then return; fi
    sleep 0.5
  done
  say "The Docker Engine did not start:"
  tail -20 /var/log/vivarium-dockerd.log >&2 || true
  exit 1
}

if answers; then
  # Where no registry answers either, the base of the sandbox image is made with debootstrap.
  if ! command -v debootstrap >/dev/null && debian_root; then install_packages debootstrap; fi
  exit 0
fi
if [ -n "${DOCKER_HOST:-}${DOCKER_CONTEXT:-}" ]; then
  say "No Docker Engine answers at DOCKER_HOST=${DOCKER_HOST:-} DOCKER_CONTEXT=${DOCKER_CONTEXT:-}."
  say "Start it, or unset these variables to use the engine of this machine."
  exit 1
fi
if ! debian_root; then
  say "No Docker Engine answers. Install one and start it, then run this again:"
  say "  Debian, Ubuntu:  sudo apt-get install docker.io debootstrap && sudo systemctl start docker"
  say "  Fedora:          sudo dnf install moby-engine && sudo systemctl start docker"
  say "  macOS, Windows:  install Docker Desktop, or on macOS 'brew install colima docker && colima start'"
  say "If an engine is running, your user may not be allowed to use it: sudo usermod -aG docker \"\$USER\", then log in again."
  exit 1
fi
command -v dockerd >/dev/null || install_packages docker.io debootstrap iptables ca-certificates
mount_cgroups
start_engine
./bin/vivarium doctor --engine >&2
