package render

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// SessionFile is a file of a session that is read to be shown. It holds no more of it than can
// be shown.
type SessionFile struct {
	data bytes.Buffer
	size int64
}

// Keep takes the file's content. It is an [execution.Keep].
func (f *SessionFile) Keep(ctx context.Context, _ string, content io.Reader) (string, error) {
	f.data.Reset()
	charged := wire.Charged(io.NopCloser(content), execution.AccountOf(ctx), loadTimes+cleanTimes)
	n, err := io.Copy(&f.data, io.LimitReader(charged, maxPictureBytes))
	if err != nil {
		return "", err
	}
	rest, err := io.Copy(io.Discard, content)
	f.size = n + rest
	return "read", err
}

func (f *SessionFile) isWhole() bool { return f.size == int64(f.data.Len()) }

// Base64 renders a file as base64.
func (r *Renderer) Base64(ctx context.Context, f *SessionFile, path string) (*mcpsdk.CallToolResult, error) {
	size := base64.StdEncoding.EncodedLen(int(f.size))
	if size > pictureBudget {
		return nil, tooLong(path, f.size, "read parts of it with execute_python")
	}
	if err := execution.AccountOf(ctx).Take(answerTimes * int64(size)); err != nil {
		return nil, err
	}
	return mcpsdk.NewToolResultText(base64.StdEncoding.EncodeToString(f.data.Bytes())), nil
}

// File renders a file as a picture or as text.
func (r *Renderer) File(ctx context.Context, f *SessionFile, path string) (*mcpsdk.CallToolResult, error) {
	data := f.data.Bytes()
	picture := mayBePicture(path)
	if picture && f.isWhole() {
		if result := r.pictureFile(ctx, f, path); result != nil {
			return result, nil
		}
	}
	switch {
	case !f.isWhole() && picture:
		return nil, tooLong(path, f.size, "make a smaller copy of it with execute_python")
	case !f.isWhole():
		return nil, tooLong(path, f.size, "read parts of it with run_bash, such as sed -n '1,100p'")
	case !isText(data):
		return nil, &execution.Error{Code: execution.Invalid, Message: fmt.Sprintf(
			"%s is not text (%s bytes): read it with encoding base64, or with execute_python", path, Grouped(f.size))}
	case len(data) == 0:
		return mcpsdk.NewToolResultText("[The file is empty.]"), nil
	}
	text, missing := cut(Clean(newlines().Replace(string(data))), r.opts.OutputBytes)
	switch {
	case missing > 0:
		text += "\n[Read parts with run_bash, such as sed -n '100,200p'.]\n"
	case text == "":
		text = fmt.Sprintf("[None of the file's %s bytes can be shown as text: read it with encoding base64.]", Grouped(f.size))
	}
	return mcpsdk.NewToolResultText(text), nil
}

// pictureFile renders a file as a picture, or returns nil if it cannot be shown as one.
func (r *Renderer) pictureFile(ctx context.Context, f *SessionFile, path string) *mcpsdk.CallToolResult {
	gallery := r.newGallery()
	picture, smaller, err := gallery.add(ctx, path, f.data.Bytes(), gallery.bytes)
	if err != nil {
		return nil
	}
	note := ""
	if smaller {
		note = ", shown reduced in size"
	}
	text := fmt.Sprintf("[%s, %s bytes%s]", Clean(path), Grouped(f.size), note)
	return &mcpsdk.CallToolResult{Content: []mcpsdk.Content{mcpsdk.NewTextContent(text), picture}}
}

// newlines replaces the line ends of other systems. In a file, a carriage return does not
// belong to a progress bar.
func newlines() *strings.Replacer { return strings.NewReplacer("\r\n", "\n", "\r", "\n") }

func tooLong(path string, size int64, instead string) error {
	return &execution.Error{Code: execution.TooLarge, Message: fmt.Sprintf(
		"%s has %s bytes, too many for one answer: %s", path, Grouped(size), instead)}
}
