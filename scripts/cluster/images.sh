# Images of the cluster's containerd. Source it.

pause_image=docker.io/vivarium/pause:1

ctr() { command ctr -a "$root/run/containerd.sock" -n k8s.io "$@"; }

# images takes images from the engine, unless the cluster has the same.
images() {
  local image id known
  for image in "$@"; do
    id=$(docker image inspect -f '{{.Id}}' "$image")
    known=$root/images/${image//\//_}
    if [ "$(cat "$known" 2>/dev/null)" = "$id" ]; then continue; fi
    say "Importing $image."
    docker save "$image" | ctr images import - >/dev/null
    mkdir -p "$root/images"
    echo "$id" >"$known"
  done
}

# import_pause makes the image of the container that holds a pod's namespaces: one layer of one file.
import_pause() {
  local folder layer config
  await "containerd" ctr version
  [ -z "$(ctr images ls -q "name==$pause_image")" ] || return 0
  folder=$(mktemp -d)
  tar -C "$root/bin" --owner=0 --group=0 --numeric-owner -cf "$folder/layer.tar" pause
  layer=$(sha256sum "$folder/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"],"User":"65535:65535"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(go env GOARCH)" "$layer" >"$folder/config.json"
  config=$(sha256sum "$folder/config.json" | cut -d' ' -f1)
  mv "$folder/config.json" "$folder/$config.json"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$pause_image" >"$folder/manifest.json"
  tar -C "$folder" -cf - . | ctr images import - >/dev/null
  rm -rf "$folder"
}
