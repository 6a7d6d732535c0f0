package render

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/png"
	"strings"
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution"
)

func encoded(t *testing.T, width, height int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A picture is refused if its client leaves while it waits, or if no time is left.
func TestGalleryEnds(t *testing.T) {
	data := encoded(t, 10, 10)
	left, leave := context.WithCancel(t.Context())
	leave()
	full := (&Renderer{decoding: make(chan struct{})}).newGallery()
	if _, _, err := full.add(left, "a", data, len(data)); err == nil || err.Error() != "the client has left" {
		t.Error(err)
	}
	late := (&Renderer{decoding: make(chan struct{}, 1)}).newGallery()
	late.time = 0
	if _, _, err := late.add(t.Context(), "a", data, len(data)); err == nil || err.Error() != "the pictures of one answer take too long to decode" {
		t.Error(err)
	}
	if len(late.decoding) != 0 {
		t.Error("the turn is not over")
	}
}

// A decoder stops within the picture when it is cancelled.
func TestDecodingEnds(t *testing.T) {
	data := encoded(t, 2000, 2000)
	enough := errors.New("enough")
	reads := 0
	r := &cancellableReader{bytes.NewReader(data), func() error {
		if reads++; reads > 3 {
			return enough
		}
		return nil
	}}
	if _, _, err := image.Decode(r); !errors.Is(err, enough) {
		t.Errorf("%v after %d reads of %d bytes", err, reads, len(data))
	}
}

// chunk makes a chunk of a PNG.
func chunk(kind string, data []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	out = append(append(out, kind...), data...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

// A picture is passed on without what else is in its file: that may be compressed, and
// take a client a thousand times as much.
func TestPicturesArePlain(t *testing.T) {
	data := encoded(t, 10, 10)
	var bomb bytes.Buffer
	w := zlib.NewWriter(&bomb)
	if _, err := w.Write(make([]byte, 10<<20)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	const header = 8 + 12 + 13 // signature and IHDR
	full := bytes.Clone(data[:header])
	for _, kind := range []string{"iCCP", "zTXt", "iTXt", "acTL", "fdAT", "eXIf", "vpAg"} {
		full = append(full, chunk(kind, append([]byte("name\x00\x00"), bomb.Bytes()...))...)
	}
	full = append(full, chunk("gAMA", []byte{0, 0, 177, 143})...)
	full = append(append(full, data[header:]...), bomb.Bytes()...)
	g := (&Renderer{decoding: make(chan struct{}, 1)}).newGallery()
	content, smaller, err := g.add(t.Context(), "a", full, len(full))
	if err != nil || smaller || content.MIMEType != "image/png" {
		t.Fatal(content.MIMEType, smaller, err)
	}
	shown, err := base64.StdEncoding.DecodeString(content.Data)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(data) + len(chunk("gAMA", make([]byte, 4))); len(shown) != want {
		t.Errorf("%d bytes are shown, not %d", len(shown), want)
	}
	if _, err := png.Decode(bytes.NewReader(shown)); err != nil {
		t.Error(err)
	}
}

// A picture is decoded and shown where there is memory for that alone.
func TestPicturesAreCharged(t *testing.T) {
	data := encoded(t, 1000, 1000) // 4 MB
	g := (&Renderer{decoding: make(chan struct{}, 1)}).newGallery()
	budget := execution.NewBudget(4<<20 + 1<<16)
	account := budget.Open("")
	ctx := execution.WithAccount(t.Context(), account)
	if _, _, err := g.add(ctx, "a", data, len(data)); err != nil {
		t.Error(err)
	}
	other := budget.Open("")
	if err := other.Take(4 << 20); err != nil {
		t.Errorf("what decoding took is not given back: %v", err)
	}
	if _, _, err := g.add(ctx, "b", encoded(t, 1000, 999), 1<<20); err == nil || !strings.Contains(err.Error(), "MAX_IN_FLIGHT_MB") {
		t.Errorf("without memory: %v", err)
	}
}
