#!/usr/bin/env bash
# Looks for known vulnerabilities in what we use. Where the database cannot be
# reached it says so and goes on: that is a gap, not a pass.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(go tool -modfile=tools/go.mod govulncheck ./... 2>&1)
status=$?
printf '%s\n' "$out"
if [ $status -ne 0 ] && grep -q 'fetching vulnerabilities: Get .* dial tcp' <<<"$out"; then
  echo "NOT CHECKED: the vulnerability database cannot be reached from here (GOVULNDB names another)." >&2
  exit 0
fi
exit $status
