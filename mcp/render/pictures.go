package render

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // kinds of pictures that can be reduced
	_ "image/jpeg"
	"image/png"
	"io"
	"math"
	"path"
	"strings"
	"time"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // as above

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Bounds of the pictures in one result. Every client known to us accepts them.
const (
	// pictureBudget bounds the size of all pictures of a result, in base64.
	pictureBudget = 700_000
	// maxSide bounds the width and the height of a picture, in pixels.
	maxSide = 8000
	// maxPixels bounds the memory for decoding a picture, up to eight bytes a pixel, and
	// for reducing it, four. Larger pictures are not shown.
	maxPixels = 25_000_000
	// resultPixels and resultTime bound the work for all pictures of a result. Pixels
	// alone would not: a JPEG may have thousands of scans.
	resultPixels = 50_000_000
	resultTime   = 10 * time.Second
	// maxPictureBytes is the size of the largest file that is decoded as a picture.
	maxPictureBytes = 20 << 20
	// smallestShare is the smallest size to which a picture is reduced, in bytes.
	smallestShare = 4 << 10
)

// pictureType returns the MIME type of a kind of picture that models can see, or "". Kinds
// are named as Go's decoders name them.
func pictureType(kind string) string {
	switch kind {
	case "png", "jpeg", "gif", "webp":
		return "image/" + kind
	}
	return ""
}

// mayBePicture reports whether a file has the name of a picture.
func mayBePicture(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".gif", ".webp":
		return true
	}
	return false
}

// gallery is the pictures of one result, and what remains of their bounds.
type gallery struct {
	decoding chan struct{} // the renderer's
	bytes    int           // before base64
	pixels   int
	time     time.Duration
	shown    map[[sha256.Size]byte]string // names by content
}

func (r *Renderer) newGallery() *gallery {
	return &gallery{
		decoding: r.decoding, bytes: base64.StdEncoding.DecodedLen(pictureBudget), pixels: resultPixels, time: resultTime,
		shown: make(map[[sha256.Size]byte]string),
	}
}

// add returns image content of at most share bytes and maxSide pixels a side: the file itself
// if it fits, else a smaller PNG. A picture that cannot be decoded is refused, because some
// models refuse a whole conversation that contains one.
func (g *gallery) add(ctx context.Context, name string, data []byte, share int) (content mcpsdk.ImageContent, smaller bool, err error) {
	sum := sha256.Sum256(data)
	if first, ok := g.shown[sum]; ok {
		return content, false, fmt.Errorf("it is the same picture as %s", first)
	}
	select { // decoding takes memory and a processor
	case g.decoding <- struct{}{}:
		defer func() { <-g.decoding }()
	case <-ctx.Done():
		return content, false, errors.New("the client has left")
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, g.time)
	defer cancel()
	content, smaller, err = g.draw(ctx, data, share)
	g.time -= time.Since(started)
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
		return content, false, errors.New("it is not a picture")
	case pixels > maxPixels:
		return content, false, fmt.Errorf("it has more than %d million pixels", maxPixels/1_000_000)
	case pixels > g.pixels:
		return content, false, fmt.Errorf("the pictures of one answer may have %d million pixels together: show it in a later call, or make it smaller",
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
	full, _, err := image.Decode(&cancellableReader{bytes.NewReader(data), ctx.Err})
	switch {
	case err != nil:
		return content, false, errors.New("the picture is incomplete or damaged")
	case fits && kind == "png":
		return imageContent(plainPNG(data), pictureType(kind)), false, nil
	case fits:
		return imageContent(data, pictureType(kind)), false, nil
	}
	data, err = shrink(ctx, full, len(data), share)
	return imageContent(data, "image/png"), true, err
}

// decodedBytes returns how much memory a picture takes while it is decoded and, if it does not
// fit, reduced.
func decodedBytes(data []byte, config image.Config, kind string, fits bool) int64 {
	pixel := 4
	switch kind {
	case "png":
		switch config.ColorModel {
		case color.NRGBA64Model, color.RGBA64Model:
			pixel = 8
		}
		if data[pngInterlace] != 0 {
			pixel *= 2 // each pass is decoded as a picture
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

// cancellableReader reads a picture's bytes until err returns an error. Decoders take no
// context. It returns few bytes at once, so that the error is noticed soon.
type cancellableReader struct {
	*bytes.Reader
	err func() error
}

func (c *cancellableReader) Read(p []byte) (int, error) {
	if err := c.err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p[:min(len(p), 512)])
}

func imageContent(data []byte, kind string) mcpsdk.ImageContent {
	return mcpsdk.NewImageContent(base64.StdEncoding.EncodeToString(data), kind)
}

// shrink returns a PNG of at most share bytes. The size of a PNG is nearly
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
	return nil, errors.New("it cannot be reduced enough")
}

// load reads a stored file that may be a picture.
func (r *Renderer) load(ctx context.Context, file execution.File) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, &execution.Error{Code: execution.Cancelled, Message: "the client has left"}
	}
	if file.Size > maxPictureBytes {
		return nil, &execution.Error{Code: execution.TooLarge, Message: "it is too large"}
	}
	stored, err := r.opts.Files.Get(ctx, file.ID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stored.Close() }() // it was only read
	return io.ReadAll(stored)
}
