#!/usr/bin/env bash
# Makes sure that the tests of pages find a Chromium: where there is none,
# installs it, as root on Debian; elsewhere says what to do.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/debian.sh
. ./debian.sh

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if ! debian_root; then
  say "The tests of pages need Chromium or Chrome. Install it, then run this again:"
  say "  Debian:  sudo apt-get install chromium"
  exit 1
fi
install_packages chromium
