package mcp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // kinds of pictures that can be made smaller
	_ "image/jpeg"
	"image/png"
	"math"
	"path"
	"strings"
	"time"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // as above

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Bounds of the pictures in one result, with which every client known to us
// copes.
const (
	// pictureBudget is the size of all pictures of a result, in base64.
	pictureBudget = 700_000
	// maxSide is how many pixels a picture may be wide or high.
	maxSide = 8000
	// maxPixels bounds the memory that a picture takes to be decoded, up to eight
	// bytes a pixel, and made smaller, four. Larger ones are not shown.
	maxPixels = 25_000_000
	// resultPixels and resultTime bound the work for all pictures of a result.
	// Pixels alone do not: a JPEG may have thousands of scans.
	resultPixels = 50_000_000
	resultTime   = 10 * time.Second
	// maxPictureBytes is the size of the largest file that is looked at as a
	// picture.
	maxPictureBytes = 20 << 20
	// smallestShare is how small, in bytes, a picture is made at most.
	smallestShare = 4 << 10
)

// pictureTypes gives the MIME types that models see as pictures, by the names
// that Go's decoders have for them.
func pictureType(kind string) string {
	switch kind {
	case "png", "jpeg", "gif", "webp":
		return "image/" + kind
	}
	return ""
}

// mayBePicture says whether a file's name is that of a picture.
func mayBePicture(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".gif", ".webp":
		return true
	}
	return false
}

// gallery is the pictures of one result, and what is left for them.
type gallery struct {
	turns  chan struct{} // the server's
	bytes  int           // as they are, not in base64
	pixels int
	time   time.Duration
	shown  map[[sha256.Size]byte]string // names, by what was shown
}

func (s *Server) newGallery() *gallery {
	return &gallery{
		turns: s.drawing, bytes: base64.StdEncoding.DecodedLen(pictureBudget), pixels: resultPixels, time: resultTime,
		shown: make(map[[sha256.Size]byte]string),
	}
}

// add makes image content of a file's bytes that takes at most share bytes, and
// never more than maxSide pixels a side: the file as it is where that is so, else
// a smaller PNG. A picture that cannot be decoded is none: some clients' models
// refuse a whole conversation for one.
func (g *gallery) add(ctx context.Context, name string, data []byte, share int) (content mcpsdk.ImageContent, smaller bool, err error) {
	sum := sha256.Sum256(data)
	if first, ok := g.shown[sum]; ok {
		return content, false, fmt.Errorf("it is the same picture as %s", first)
	}
	select { // decoding takes memory, and a processor
	case g.turns <- struct{}{}:
		defer func() { <-g.turns }()
	case <-ctx.Done():
		return content, false, errors.New("the client has left")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, g.time)
	defer cancel()
	content, smaller, err = g.draw(ctx, data, share)
	g.time -= time.Since(began)
	if ctx.Err() != nil {
		return mcpsdk.ImageContent{}, false, errors.New("the pictures of one answer take too long to decode")
	}
	if err == nil {
		err = execution.AccountOf(ctx).Take(answerTimes * int64(len(content.Data)))
	}
	if err != nil {
		return mcpsdk.ImageContent{}, false, err
	}
	g.shown[sum] = name
	g.bytes -= base64.StdEncoding.DecodedLen(len(content.Data))
	return content, smaller, nil
}

func (g *gallery) draw(ctx context.Context, data []byte, share int) (content mcpsdk.ImageContent, smaller bool, err error) {
	config, kind, err := image.DecodeConfig(bytes.NewReader(data))
	pixels := config.Width * config.Height
	fits := len(data) <= share && max(config.Width, config.Height) <= maxSide
	switch {
	case err != nil || pixels == 0:
		return content, false, errors.New("it is no picture")
	case pixels > maxPixels:
		return content, false, fmt.Errorf("it has more than %d million pixels", maxPixels/1_000_000)
	case pixels > g.pixels:
		return content, false, fmt.Errorf("the pictures of one answer may have %d million pixels: have a later call show it, or a smaller one",
			resultPixels/1_000_000)
	case !fits && share < smallestShare:
		return content, false, errors.New("there is no room for more pictures in one answer")
	}
	g.pixels -= pixels
	account, cost := execution.AccountOf(ctx), decodedBytes(data, config, kind, fits)
	if err := account.Take(cost); err != nil {
		return content, false, err
	}
	defer account.Give(cost)
	full, _, err := image.Decode(&whileWanted{bytes.NewReader(data), ctx.Err})
	switch {
	case err != nil:
		return content, false, errors.New("it is no whole picture")
	case fits && kind == "png":
		return imageContent(plainPNG(data), pictureType(kind)), false, nil
	case fits:
		return imageContent(data, pictureType(kind)), false, nil
	}
	data, err = shrink(ctx, full, len(data), share)
	return imageContent(data, "image/png"), true, err
}

// decodedBytes is what a picture takes while it is decoded and, where it does not fit,
// made smaller.
func decodedBytes(data []byte, config image.Config, kind string, fits bool) int64 {
	pixel := 4
	switch kind {
	case "png":
		switch config.ColorModel {
		case color.NRGBA64Model, color.RGBA64Model:
			pixel = 8
		}
		if data[pngInterlace] != 0 {
			pixel *= 2 // each pass is a picture
		}
	case "jpeg":
		if bytes.Contains(data, []byte{0xFF, 0xC2}) { // progressive: all coefficients are kept
			pixel = 20
		}
	case "webp":
		pixel = 12
	}
	if !fits {
		pixel += 4
	}
	return int64(pixel) * int64(config.Width) * int64(config.Height)
}

// whileWanted is a picture's bytes, until nobody wants it any more: decoders know
// no contexts. It gives few at once, so that they ask often.
type whileWanted struct {
	*bytes.Reader
	unwanted func() error
}

func (w *whileWanted) Read(p []byte) (int, error) {
	if err := w.unwanted(); err != nil {
		return 0, err
	}
	return w.Reader.Read(p[:min(len(p), 512)])
}

func imageContent(data []byte, kind string) mcpsdk.ImageContent {
	return mcpsdk.NewImageContent(base64.StdEncoding.EncodeToString(data), kind)
}

// shrink makes a PNG of at most share bytes. The size of a PNG is nearly
// proportional to its area, so two or three attempts are enough.
func shrink(ctx context.Context, full image.Image, size, share int) ([]byte, error) {
	bounds := full.Bounds()
	scale := math.Min(1, float64(maxSide)/float64(max(bounds.Dx(), bounds.Dy())))
	scale = math.Min(scale, math.Sqrt(float64(share)/float64(size)))
	for range 5 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		small := image.NewNRGBA(image.Rect(0, 0, max(1, int(float64(bounds.Dx())*scale)), max(1, int(float64(bounds.Dy())*scale))))
		draw.ApproxBiLinear.Scale(small, small.Bounds(), full, bounds, draw.Src, nil)
		var out bytes.Buffer
		if err := png.Encode(&out, small); err != nil {
			return nil, err
		}
		if out.Len() <= share {
			return out.Bytes(), nil
		}
		scale *= 0.9 * math.Sqrt(float64(share)/float64(out.Len()))
	}
	return nil, errors.New("it cannot be made small enough")
}
