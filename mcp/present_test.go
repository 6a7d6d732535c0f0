package mcp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp/transport"
)

// made is a file that a fake run makes.
type made struct {
	path string
	data []byte
}

// makes is an executor whose program makes files.
func makes(result *execution.Result, files ...made) execute {
	return func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		r := *result
		for _, f := range files {
			id, err := req.Keep(ctx, f.path, bytes.NewReader(f.data))
			if err != nil {
				return nil, err
			}
			r.Files = append(r.Files, execution.File{Path: f.path, Size: int64(len(f.data)), ID: id})
		}
		return &r, nil
	}
}

// drawing makes a PNG; one of noise cannot be compressed.
func drawing(t *testing.T, width, height int, noise bool) []byte {
	t.Helper()
	picture := image.NewNRGBA(image.Rect(0, 0, width, height))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range picture.Pix {
		picture.Pix[i] = 0xff
		if noise {
			picture.Pix[i] = byte(random.Uint32())
		}
	}
	picture.Set(0, 0, color.Black)
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// kinds lists the kinds of a result's content.
func (r result) kinds() string {
	var kinds []string
	for _, c := range r.Content {
		kinds = append(kinds, c.Type)
	}
	return strings.Join(kinds, " ")
}

func TestPictures(t *testing.T) {
	small, wide, large := drawing(t, 30, 20, false), drawing(t, 9000, 10, false), drawing(t, 700, 700, true)
	for name, test := range map[string]struct {
		files []made
		kinds string
		notes []string // in the text, by file
	}{
		"as it is":       {[]made{{"a.png", small}}, "text image", []string{"a.png, 102 bytes, file_id *, shown below]"}},
		"too wide":       {[]made{{"a.png", wide}}, "text image resource_link", []string{"shown below, reduced in size]"}},
		"too large":      {[]made{{"a.png", large}}, "text image resource_link", []string{"shown below, reduced in size]"}},
		"several":        {[]made{{"a.png", large}, {"b.PNG", small}, {"c.png", append(bytes.Clone(large), 0)}}, "text image image image resource_link resource_link", nil},
		"not a picture":  {[]made{{"a.png", []byte("text")}}, "text resource_link", []string{"not shown: it is not a picture]"}},
		"half a picture": {[]made{{"a.png", large[:len(large)/2]}}, "text resource_link", []string{"not shown: the picture is incomplete or damaged]"}},
		"half a small":   {[]made{{"a.png", small[:len(small)/2]}}, "text resource_link", []string{"not shown: the picture is incomplete or damaged]"}},
		"no pixels":      {[]made{{"a.gif", []byte("GIF89a\x00\x00\x00\x00\x00\x00\x00;")}}, "text resource_link", []string{"not shown: it is not a picture]"}},
		"a header": {
			[]made{{"a.webp", []byte("RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x09\x00\x00")}},
			"text resource_link",
			[]string{"not shown: the picture is incomplete or damaged]"},
		},
		"twice": {
			[]made{{"a.png", small}, {"b.png", small}},
			"text image resource_link",
			[]string{"shown below]", "b.png, 102 bytes, file_id *, not shown: it is the same picture as a.png]"},
		},
		"too many pixels": {
			[]made{{"a.png", bomb(small, 5000, 4900)}, {"b.png", bomb(small, 4900, 5000)}, {"c.png", bomb(small, 4950, 5000)}, {"d.png", small}},
			"text image resource_link resource_link resource_link",
			[]string{
				"not shown: the picture is incomplete or damaged]", "not shown: the picture is incomplete or damaged]",
				"not shown: the pictures of one answer may have 50 million pixels together: show it in a later call, or make it smaller]", "shown below]",
			},
		},
		"an empty one": {[]made{{"a.png", nil}}, "text resource_link", []string{"not shown: it is not a picture]"}},
		"a bomb":       {[]made{{"a.png", bomb(small, 65535, 65535)}}, "text resource_link", []string{"not shown: it has more than 25 million pixels]"}},
		"other files":  {[]made{{"a.csv", []byte("a,b\n")}}, "text resource_link", []string{"a.csv, 4 bytes, file_id *]"}},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(makes(exited(0), test.files...))
			opts.Files = newStore(t)
			r := connect(t, opts).tool("execute_python", `{"code": ""}`)
			if r.kinds() != test.kinds {
				t.Errorf("%s: %s", r.kinds(), r.Content[0].Text)
			}
			total := 0
			for _, c := range r.Content {
				if c.Type == "image" {
					total += base64.StdEncoding.EncodedLen(len(c.Data))
					config, kind, err := image.DecodeConfig(bytes.NewReader(c.Data))
					if err != nil || "image/"+kind != c.MIMEType || max(config.Width, config.Height) > 8000 {
						t.Errorf("%s %s %+v %v", c.MIMEType, kind, config, err)
					}
				}
			}
			if total > 700_000 {
				t.Errorf("the pictures take %d bytes", total)
			}
			for i, note := range test.notes {
				line := strings.Split(r.Content[0].Text, "\n")[i]
				before, after, _ := strings.Cut(note, "*")
				if !strings.Contains(line, before) || !strings.HasSuffix(line, after) {
					t.Error(line)
				}
			}
		})
	}
}

// bomb makes a picture say that it is enormous: its width stands at byte 16 of a
// PNG, and its height behind. The checksum of that part must be right.
func bomb(picture []byte, width, height uint32) []byte {
	out := bytes.Clone(picture)
	binary.BigEndian.PutUint32(out[16:], width)
	binary.BigEndian.PutUint32(out[20:], height)
	binary.BigEndian.PutUint32(out[29:], crc32.ChecksumIEEE(out[12:29]))
	return out
}

// Output beyond the budget is cut in its middle, and saved whole.
func TestLongOutput(t *testing.T) {
	r := exited(0)
	r.Stdout = strings.Repeat("0123456789\n", 10_000)
	r.Stderr = strings.Repeat("é", 20_000)
	opts := options(gives(r, nil))
	opts.Files = newStore(t)
	c := connect(t, opts)
	got := c.tool("execute_python", `{"code": ""}`)
	text := got.Content[0].Text
	for _, want := range []string{
		"0123456789\n[... 90,002 of 110,000 bytes are left out here ...]\n0123456789\n", "[stderr]\né",
		"[... 30,000 of 40,000 bytes are left out here ...]", "[file: stdout.txt, 110,000 bytes, file_id ", "[file: stderr.txt, 40,000 bytes, file_id ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the text: %.300s", want, text[len(text)-500:])
		}
	}
	if len(text) > 31_000 || got.kinds() != "text resource_link resource_link" {
		t.Errorf("%d bytes, %s", len(text), got.kinds())
	}
	var read struct {
		Contents []struct{ Text, MIMEType, URI string }
	}
	m := c.request("resources/read", `{"uri": "`+got.Content[1].URI+`"}`)
	if err := json.Unmarshal(m.Result, &read); err != nil || len(read.Contents) != 1 {
		t.Fatalf("%s %+v %v", m.Result, m.Error, err)
	}
	if f := read.Contents[0]; f.Text != r.Stdout || f.MIMEType != "text/plain" || f.URI != got.Content[1].URI {
		t.Errorf("%d bytes, %s, %s", len(f.Text), f.MIMEType, f.URI)
	}
}

// Files go from one call to the next by their ids, and are read as resources.
func TestFilesOfCalls(t *testing.T) {
	opts := options(nil)
	opts.Files = newStore(t)
	opts.Executor = execute(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		if len(req.Files) == 0 {
			return makes(exited(0), made{"data/é.bin", []byte{0, 255}})(ctx, req)
		}
		content, err := req.Files[0].Open(ctx)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(content)
		_ = content.Close()
		return printed(fmt.Sprintf("%s: %x\n", req.Files[0].Path, data)), err
	})
	c := connect(t, opts)
	link := c.tool("execute_python", `{"code": ""}`).Content[1]
	if link.Name != "data/é.bin" || link.About != "2 bytes" || link.MIMEType != "application/octet-stream" {
		t.Errorf("%+v", link)
	}
	id := strings.TrimPrefix(link.URI, "vivarium://files/")
	if text, isError := c.call(`{"code": "", "files": [{"path": "in", "file_id": "` + id + `"}]}`); isError || text != "in: 00ff\n" {
		t.Errorf("error %v: %s", isError, text)
	}
	m := c.request("resources/read", `{"uri": "`+link.URI+`"}`)
	if want := `{"contents":[{"uri":"` + link.URI + `","mimeType":"application/octet-stream","blob":"AP8="}]}`; string(m.Result) != want {
		t.Errorf("%s %+v", m.Result, m.Error)
	}
	for _, uri := range []string{"vivarium://files/nope", "vivarium://files/../x", "file:///etc/passwd"} {
		if m := c.request("resources/read", `{"uri": "`+uri+`"}`); m.Error == nil || m.Error.Code != -32002 {
			t.Errorf("%s: %s %+v", uri, m.Result, m.Error)
		} else if want := "File with ID 'nope' not found: it has expired or never existed"; uri == "vivarium://files/nope" && !strings.Contains(m.Error.Message, want) {
			t.Error(m.Error.Message)
		}
	}
}

// Files of a cancelled call are deleted.
func TestFilesOfCancelledCalls(t *testing.T) { synctest.Test(t, testFilesOfCancelledCalls) }

func testFilesOfCancelledCalls(t *testing.T) {
	t.Helper()
	store := newStore(t)
	opts := options(nil)
	opts.Files = store
	made := makes(exited(0), made{"a", []byte("a")})
	var c *client
	opts.Executor = execute(func(ctx context.Context, req execution.Request) (*execution.Result, error) {
		r, err := made(ctx, req)
		c.write(`{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}`)
		<-ctx.Done()
		return r, err
	})
	c = connect(t, opts)
	c.send("tools/call", `{"name": "execute_python", "arguments": {"code": ""}}`)
	synctest.Wait()
	if left, err := store.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}

// Over HTTP a file has a URL too.
func TestFileURLs(t *testing.T) {
	for _, public := range []string{"", "https://vivarium.example"} {
		opts := options(makes(exited(0), made{"a.csv", []byte("a")}))
		store := newStore(t)
		opts.Files, opts.PublicURL = store, public
		server, _ := newHTTP(t, opts)
		_, session, _ := post(t, server.Client(), server.URL+transport.StreamablePath, "", hello)
		_, _, text := post(t, server.Client(), server.URL+transport.StreamablePath, session, callCode)
		files, err := store.List(t.Context())
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		if public == "" {
			public = server.URL
		}
		if want := "1 bytes, also at " + public + "/v1/files/" + files[0].ID; !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
}
