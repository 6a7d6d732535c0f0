#!/usr/bin/env bash
# Makes sure that there is a C compiler, which Go's race detector needs: where
# there is none, installs it, as root on Debian; elsewhere says what to do.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/debian.sh
. ./debian.sh

# With the headers, which a distribution may have in another package.
# shellcheck disable=SC2046 # CC may be several words
compiles() { printf '#include <stdlib.h>\n' | $(go env CC) -E - >/dev/null 2>&1; }

if compiles; then exit 0; fi
if ! debian_root; then
  say "The tests need a C compiler, for Go's race detector. Install it, then run this again:"
  say "  Debian:  sudo apt-get install gcc libc6-dev"
  say "  macOS:   xcode-select --install"
  exit 1
fi
install_packages gcc libc6-dev
