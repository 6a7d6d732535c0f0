# What the scripts share that install packages. Source it.

say() { printf '%s\n' "$*" >&2; }

debian_root() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && grep -qiE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release
}

install_packages() {
  say "Installing $* from the distribution."
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2
  apt-get install -y -qq --no-install-recommends "$@" >/tmp/vivarium-apt.log 2>&1 || { tail -20 /tmp/vivarium-apt.log >&2; exit 1; }
}
