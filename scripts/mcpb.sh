#!/usr/bin/env bash
# Packs a binary as an MCP bundle, FOLDER/vivarium.mcpb, and writes
# FOLDER/server.json, which is ours with the bundle's hash. It needs what
# scripts/node.sh installs.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 BINARY FOLDER" >&2; exit 2; }
binary=$(realpath "$1")
folder=$(realpath "$2")
cd "$(dirname "$0")/.."
modules=integration/clients/node_modules
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) arch=none ;; esac
node=$modules/node-linux-$arch/bin/node
[ -x "$node" ] || node=node
mcpb() { "$node" "$modules/@anthropic-ai/mcpb/dist/cli/cli.js" "$@"; }

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
install -D -m 755 "$binary" "$stage/server/vivarium"
install -m 644 mcpb/manifest.json LICENSE "$stage"
mcpb validate "$stage"
mcpb pack "$stage" "$folder/vivarium.mcpb"

# shellcheck disable=SC2016 # JavaScript's own
"$node" -e '
  const { createHash } = require("node:crypto"), { readFileSync, writeFileSync } = require("node:fs");
  const entry = JSON.parse(readFileSync("server.json"));
  for (const pkg of entry.packages.filter((pkg) => pkg.registryType === "mcpb")) {
    pkg.fileSha256 = createHash("sha256").update(readFileSync(process.argv[1])).digest("hex");
  }
  writeFileSync(process.argv[2], JSON.stringify(entry, null, 2) + "\n");
' "$folder/vivarium.mcpb" "$folder/server.json"
