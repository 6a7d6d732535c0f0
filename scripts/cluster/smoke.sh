# A test of the cluster itself: what the suites take for granted. Source it.

smoke() {
  local addresses first second findings
  images vivarium/sandbox:slim
  mkdir -p "$root/kubelet/seccomp/vivarium"
  # It denies one call, in a way of its own.
  echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}' \
    >"$root/kubelet/seccomp/vivarium/smoke.json"
  kubectl delete namespace smoke --ignore-not-found
  kubectl apply -f scripts/cluster/smoke.yaml
  kubectl -n smoke wait --for=condition=Available --timeout=90s deployment/smoke || {
    kubectl -n smoke get events >&2
    exit 1
  }
  addresses=$(kubectl -n smoke get pods -o 'jsonpath={.items[*].status.podIP}')
  read -r first second <<<"$addresses"
  findings=$(ask "$first")
  expect "the uid" "uid 65532" "$findings"
  expect "the Localhost profile" "seccomp errno 95" "$findings"
  expect "the kubelet, from a pod" "kubelet 401" "$findings"
  expect "the API server's Service, from a pod" "api server 200" "$findings"
  expect "a pod, from another" "uid 65532" \
    "$(kubectl -n smoke exec deployment/smoke -- python3 -c \
      "import urllib.request; [print(urllib.request.urlopen(f'http://{a}:8080').read()) for a in ('$first', '$second')]" 2>&1)"
  expect "a pod that is not hardened" 'violates PodSecurity "restricted' \
    "$(kubectl -n smoke run weak --image=vivarium/sandbox:slim 2>&1 || true)"
  kubectl delete namespace smoke
  rm -f "$root/kubelet/seccomp/vivarium/smoke.json"
  rmdir --ignore-fail-on-non-empty "$root/kubelet/seccomp/vivarium"
}

# ask prints what a pod answers over HTTP.
ask() {
  exec 3<>"/dev/tcp/$1/8080"
  printf 'GET / HTTP/1.0\r\n\r\n' >&3
  cat <&3
  exec 3>&-
}

expect() {
  case $3 in
    *"$2"*) say "ok   $1" ;;
    *) say "FAIL $1: \"$2\" is not in: $3"; exit 1 ;;
  esac
}
