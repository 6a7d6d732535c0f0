//go:build !gs

package filestore

import "gocloud.dev/blob"

// hasGoogle reports whether the store can open gs://. The client library would add
// 22 MB to the binary and 10 ms to the start of each process.
const hasGoogle = false

func registerGoogle(*blob.URLMux) {}
