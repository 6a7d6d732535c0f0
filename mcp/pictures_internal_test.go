package mcp

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"testing"
)

func encoded(t *testing.T, width, height int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Who waits for a turn, or has none of the time left, gets no picture.
func TestGalleryEnds(t *testing.T) {
	data := encoded(t, 10, 10)
	left, leave := context.WithCancel(t.Context())
	leave()
	full := (&Server{drawing: make(chan struct{})}).newGallery()
	if _, _, err := full.add(left, "a", data, len(data)); err == nil || err.Error() != "the client has left" {
		t.Error(err)
	}
	late := (&Server{drawing: make(chan struct{}, 1)}).newGallery()
	late.time = 0
	if _, _, err := late.add(t.Context(), "a", data, len(data)); err == nil || err.Error() != "the pictures of one answer take too long to decode" {
		t.Error(err)
	}
	if len(late.turns) != 0 {
		t.Error("the turn is not over")
	}
}

// A decoder stops when nobody wants its picture any more, within the picture.
func TestDecodingEnds(t *testing.T) {
	data := encoded(t, 2000, 2000)
	enough := errors.New("enough")
	reads := 0
	r := &whileWanted{bytes.NewReader(data), func() error {
		if reads++; reads > 3 {
			return enough
		}
		return nil
	}}
	if _, _, err := image.Decode(r); !errors.Is(err, enough) {
		t.Errorf("%v after %d reads of %d bytes", err, reads, len(data))
	}
}
