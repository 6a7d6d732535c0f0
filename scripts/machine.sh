#!/usr/bin/env bash
# Tests sandboxes without an engine on a machine that this one may not be: a virtual one with systemd and cgroups of
# version 2. It takes root, Debian or Ubuntu, and minutes: the machine is emulated, ten times slower than this one.
#
#   machine.sh VIVARIUM TESTS   the server and integration's tests, both built with CGO_ENABLED=0
#
# SUITE is Debian's release in the machine (trixie). Its disk stays in ~/.cache/vivarium-machine for the next time.
set -euo pipefail
vivarium=$(realpath "$1") tests=$(realpath "$2")
cd "$(dirname "$0")"
# shellcheck source=scripts/debian.sh
. ./debian.sh

suite=${SUITE:-trixie}
folder=${XDG_CACHE_HOME:-$HOME/.cache}/vivarium-machine/$suite
port=${MACHINE_PORT:-2222}
key=$folder/key

# build makes the machine's disk, with a kernel and an initrd beside it.
build() {
  local root=$folder/root
  mkdir -p "$folder"
  rm -rf --one-file-system "$root"
  rm -f "$key" "$key.pub"
  ssh-keygen -q -t ed25519 -N '' -C machine -f "$key"
  unshare --mount debootstrap --variant=minbase "$suite" "$root" "$(mirror)"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # start nothing
  chmod +x "$root/usr/sbin/policy-rc.d"
  mkdir -p "$root/etc/initramfs-tools/conf.d"
  echo MODULES=list >"$root/etc/initramfs-tools/conf.d/machine"
  printf '%s\n' virtio_pci virtio_blk ext4 >"$root/etc/initramfs-tools/modules"
  inside "$root" apt-get install -qy --no-install-recommends systemd systemd-sysv udev dbus dbus-user-session \
    libpam-systemd openssh-server python3 kmod initramfs-tools zstd
  inside "$root" apt-get install -qy --no-install-recommends linux-image-cloud-amd64
  inside "$root" useradd -m -u 1000 -s /bin/bash ada
  for home in root home/ada; do
    install -d -m 700 "$root/$home/.ssh"
    install -m 600 "$key.pub" "$root/$home/.ssh/authorized_keys"
  done
  inside "$root" chown -R ada:ada /home/ada
  echo '/dev/vda / ext4 defaults 0 0' >"$root/etc/fstab"
  printf '127.0.0.1 localhost machine\n' >"$root/etc/hosts"
  printf '[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nLinkLocalAddressing=no\n' >"$root/etc/systemd/network/machine.network"
  inside "$root" systemctl enable systemd-networkd ssh
  inside "$root" systemctl mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer
  rm -f "$root/usr/sbin/policy-rc.d"
  cp "$root"/boot/vmlinuz-* "$folder/kernel"
  cp "$root"/boot/initrd.img-* "$folder/initrd"
  mkfs.ext4 -q -L root -d "$root" "$folder/disk.new" 4G
  mv "$folder/disk.new" "$folder/disk"
  rm -rf --one-file-system "$root"
}

# mirror is where this machine has its packages from.
mirror() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^ *#' |
    grep -oE 'https?://[^ ]+/debian/?( |$)' | tr -d ' ' | sed -n 1p
}

# inside runs a command in the new root, in a mount namespace that goes with it.
inside() {
  # shellcheck disable=SC2016
  DEBIAN_FRONTEND=noninteractive LC_ALL=C unshare --mount sh -ec 'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"' "$@"
}

# start starts the machine; what it does to its disk is forgotten. Only ssh comes in, and nothing goes out.
start() {
  qemu-system-x86_64 -name machine -machine q35 -accel tcg,thread=multi -cpu max,la57=off -smp 2 -m 3072 \
    -nodefaults -display none -monitor none -serial "file:$folder/console" \
    -kernel "$folder/kernel" -initrd "$folder/initrd" \
    -append 'root=/dev/vda rw console=ttyS0 net.ifnames=0 fsck.mode=skip' \
    -drive "file=$folder/disk,if=virtio,format=raw,snapshot=on" \
    -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=net,romfile= \
    -device virtio-rng-pci &
  qemu=$!
  trap 'kill $qemu 2>/dev/null; wait $qemu 2>/dev/null' EXIT
  for _ in $(seq 300); do
    kill -0 $qemu || fail "the machine has ended: see $folder/console"
    as root true 2>/dev/null && return
    sleep 1
  done
  fail "the machine does not answer: see $folder/console"
}

options=(-F /dev/null -i "$key" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o BatchMode=yes
  -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=30)

# as runs a shell line as somebody who has logged in.
as() { ssh -p "$port" "${options[@]}" "$1@127.0.0.1" "$2" </dev/null; }

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# check runs a shell line as somebody, which must say something.
check() {
  local said
  said=$(as "$1" "$3" 2>&1) || true
  case $said in *"$4"*) echo "ok   $2" ;; *) fail "$2: \"$4\" is not in:"$'\n'"$said" ;; esac
}

missing=()
for tool in qemu-system-x86_64:qemu-system-x86 mkfs.ext4:e2fsprogs debootstrap:debootstrap ssh:openssh-client; do
  command -v "${tool%:*}" >/dev/null || missing+=("${tool#*:}")
done
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
[ -f "$folder/disk" ] || build
start
scp -qP "$port" "${options[@]}" "$vivarium" "$tests" root@127.0.0.1:/usr/local/bin/
as root "chmod 755 /usr/local/bin/*; stat -fc %T /sys/fs/cgroup; uname -r"

doctor="EXECUTOR_BACKEND=local $(basename "$vivarium") doctor"
service="systemd-run -q --wait --pipe -E EXECUTOR_BACKEND=local -E PATH=/usr/local/bin:/usr/bin"
second='are limited by cgroups of version 2'
check ada "a user who has logged in" "$doctor" "$second"
check root "root" "$doctor" "$second"
check ada "a user's service" "$service --user $(basename "$vivarium") doctor" "$second"
check root "a service with Delegate" "$service -p User=ada -p Delegate=yes $(basename "$vivarium") doctor" "$second"
check root "a service without" "$service -p User=ada $(basename "$vivarium") doctor" "its unit needs Delegate=yes"
check ada "a program that wants too much memory" "EXECUTOR_BACKEND=local $(basename "$vivarium") exec --timeout 60s 'bytearray(900 << 20)'; echo \$?" 137
# Every way to have the kernel keep memory, as TestKernelMemory tries them.
{ echo 'ONLY, SLACK, COUNTED, LIMIT, SECONDS = "", 96, True, 256, 3.0' && cat ../integration/testdata/hoard/*.py; } >"$folder/hoard.py"
scp -qP "$port" "${options[@]}" "$folder/hoard.py" root@127.0.0.1:/tmp/
hoard="EXECUTOR_BACKEND=local MEMORY_LIMIT_MB=256 MAX_EXEC_TIMEOUT_MS=900000 CPU_TIME_LIMIT_SEC=600 $(basename "$vivarium") exec --timeout 900s --from /tmp/hoard.py"
check root "the kernel's memory" "$hoard >/tmp/hoarded; cat /tmp/hoarded >&2; grep -c ^ok /tmp/hoarded | xargs test 30 -lt && grep -c UNBOUNDED /tmp/hoarded; echo ways \$?" "ways 1"
for way in netlink tcp_unaccepted sockets locks; do
  as root "sed -i '1s/ = \"[a-z_]*\", 96, True, 256, .*/ = \"$way\", 96, True, 256, 120.0/' /tmp/hoard.py"
  check root "the kernel's memory: $way" "$hoard; echo \$?" "137"
done
as root "echo 0 > /proc/sys/user/max_user_namespaces"
check ada "no namespaces" "$doctor" "user namespaces are switched off: sudo sysctl -w user.max_user_namespaces=15000"
as root "echo 15000 > /proc/sys/user/max_user_namespaces"
check ada "conformance" "VIVARIUM_TEST_ROOTFS=/ $(basename "$tests") -test.run=TestLocalConformance/host -test.parallel=1 -test.v 2>&1 | tail -n 300" "--- PASS: TestLocalConformance "
