#!/usr/bin/env bash
# Makes sure that the tests of MCP clients find what they need in
# integration/clients/node_modules: the clients, the conformance suites, and on
# Linux the Node.js that runs them. npm brings all of it; where there is none,
# installs it, as root on Debian; elsewhere says what to do.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/debian.sh
. ./debian.sh
cd ../integration/clients

if cmp -s package-lock.json node_modules/.installed-lock.json; then exit 0; fi
if ! command -v npm >/dev/null; then
  if ! debian_root; then
    say "The tests of MCP clients need npm. Install it, then run this again:"
    say "  Debian:  sudo apt-get install npm"
    say "  macOS:   brew install node"
    exit 1
  fi
  install_packages npm
fi
say "Installing MCP clients and conformance suites."
npm ci
cp package-lock.json node_modules/.installed-lock.json
