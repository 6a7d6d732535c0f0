# Keys, certificates and who is who with the API server. Source it.

# issue makes a key and a certificate: NAME SUBJECT USAGE [ALTERNATIVE_NAMES].
issue() {
  local extensions=(-addext "extendedKeyUsage=$3" -addext "keyUsage=critical,digitalSignature" -addext "basicConstraints=CA:FALSE")
  [ -z "${4:-}" ] || extensions+=(-addext "subjectAltName=$4")
  openssl req -x509 -CA "$root/keys/ca.crt" -CAkey "$root/keys/ca.key" -days 3650 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
    -subj "$2" "${extensions[@]}" -keyout "$root/keys/$1.key" -out "$root/keys/$1.crt" 2>"$root/log/openssl.log" ||
    { cat "$root/log/openssl.log" >&2; return 1; }
}

# user makes a client certificate and a kubeconfig with it: NAME SUBJECT.
user() {
  issue "$1" "$2" clientAuth
  cat >"$root/$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters:
- name: vivarium
  cluster: {server: "https://$address:6443", certificate-authority-data: $(base64 -w 0 "$root/keys/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w 0 "$root/keys/$1.crt"), client-key-data: $(base64 -w 0 "$root/keys/$1.key")}
contexts:
- name: vivarium
  context: {cluster: vivarium, user: $1}
current-context: vivarium
END
}

# first_of prints the first address of a range, which the Service of the API server has.
first_of() { sed 's/\.0\/.*/.1/' <<<"$1"; }

make_keys() {
  [ ! -e "$root/keys/complete" ] || return 0
  say "Making keys."
  umask 077
  mkdir -p "$root/keys" "$root/log"
  openssl req -x509 -days 3650 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=vivarium-cluster \
    -addext "keyUsage=critical,keyCertSign,digitalSignature" -keyout "$root/keys/ca.key" -out "$root/keys/ca.crt" 2>"$root/log/openssl.log"
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$root/keys/accounts.key"
  openssl pkey -in "$root/keys/accounts.key" -pubout -out "$root/keys/accounts.pub"
  local names="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  issue etcd /CN=etcd serverAuth,clientAuth "IP:127.0.0.1"
  issue kube-apiserver /CN=kube-apiserver serverAuth "$names,IP:$address,IP:$(first_of "$services")"
  issue kubelet-server "/O=system:nodes/CN=system:node:$node" serverAuth "DNS:$node,IP:$address"
  issue kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
  user admin /O=system:masters/CN=admin
  user kubelet "/O=system:nodes/CN=system:node:$node"
  user kube-controller-manager /CN=system:kube-controller-manager
  user kube-scheduler /CN=system:kube-scheduler
  user kube-proxy /CN=system:kube-proxy
  touch "$root/keys/complete"
  umask 022
}
