package mcp

import (
	"encoding/binary"
	"slices"
)

const (
	pngSignature = 8
	// pngChunk is what a chunk has beside its data: length, type and checksum.
	pngChunk = 12
	// pngInterlace is where a PNG says whether it is interlaced.
	pngInterlace = 28
)

// plainPNG returns a whole PNG with the chunks alone that its pixels need. Others may
// be compressed, such as colour profiles, texts and the frames of animations: decoded
// by a client, 260 kB of them become 200 MB.
func plainPNG(data []byte) []byte {
	keep := []string{"IHDR", "PLTE", "IDAT", "IEND", "tRNS", "gAMA", "cHRM", "sRGB", "sBIT", "bKGD", "pHYs"}
	plain := slices.Clone(data[:pngSignature])
	for rest := data[pngSignature:]; len(rest) >= pngChunk; {
		size := pngChunk + int(binary.BigEndian.Uint32(rest))
		if size > len(rest) {
			break
		}
		kind := string(rest[4:8])
		if slices.Contains(keep, kind) {
			plain = append(plain, rest[:size]...)
		}
		if kind == "IEND" {
			break
		}
		rest = rest[size:]
	}
	return plain
}
