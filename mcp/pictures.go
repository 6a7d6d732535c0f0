package mcp

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // kinds of pictures that can be made smaller
	_ "image/jpeg"
	"image/png"
	"math"
	"path"
	"strings"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // as above

	mcpsdk "github.com/mark3labs/mcp-go/mcp"
)

// Bounds of the pictures in one result, with which every client known to us
// copes.
const (
	// pictureBudget is the size of all pictures of a result, in base64.
	pictureBudget = 700_000
	// maxSide is how many pixels a picture may be wide or high.
	maxSide = 8000
	// maxPixels bounds the memory that a picture takes to be made smaller: four
	// bytes a pixel, twice. Larger ones are not shown.
	maxPixels = 25_000_000
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

// picture makes image content of a file's bytes that takes at most share bytes,
// and never more than maxSide pixels a side: the file as it is where that is so,
// else a smaller PNG.
func picture(data []byte, share int) (content mcpsdk.ImageContent, smaller bool, err error) {
	config, kind, err := image.DecodeConfig(bytes.NewReader(data))
	switch {
	case err != nil:
		return content, false, errors.New("it is no picture")
	case config.Width*config.Height > maxPixels:
		return content, false, fmt.Errorf("it has more than %d million pixels", maxPixels/1_000_000)
	case len(data) <= share && max(config.Width, config.Height) <= maxSide:
		return imageContent(data, pictureType(kind)), false, nil
	case share < smallestShare:
		return content, false, errors.New("there is no room for more pictures in one answer")
	}
	full, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return content, false, errors.New("it is no whole picture")
	}
	data, err = shrink(full, len(data), share)
	return imageContent(data, "image/png"), true, err
}

func imageContent(data []byte, kind string) mcpsdk.ImageContent {
	return mcpsdk.NewImageContent(base64.StdEncoding.EncodeToString(data), kind)
}

// shrink makes a PNG of at most share bytes. The size of a PNG is nearly
// proportional to its area, so two or three attempts are enough.
func shrink(full image.Image, size, share int) ([]byte, error) {
	bounds := full.Bounds()
	scale := math.Min(1, float64(maxSide)/float64(max(bounds.Dx(), bounds.Dy())))
	scale = math.Min(scale, math.Sqrt(float64(share)/float64(size)))
	for range 5 {
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
