package render

import (
	"encoding/binary"
	"slices"
)

const (
	pngSignature = 8
	// pngChunk is the size of a chunk without its data: length, type and checksum.
	pngChunk = 12
	// pngInterlace is the position of the byte that is not zero if the PNG is interlaced.
	pngInterlace = 28
)

// plainPNG returns a complete PNG with only the chunks that its pixels need. Other chunks,
// such as colour profiles, texts and the frames of animations, may be compressed: 260 kB of
// them can take 200 MB when a client decodes them.
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
