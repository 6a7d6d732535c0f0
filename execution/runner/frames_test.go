package runner

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestReadFrame(t *testing.T) {
	for name, test := range map[string]struct {
		data string
		want frame
		err  error
	}{
		"empty":             {"Z\x00\x00\x00\x00", frame{'Z', []byte{}}, nil},
		"short":             {"O\x00\x00\x00\x02hi, and more", frame{'O', []byte("hi")}, nil},
		"any bytes":         {"\x00\x00\x00\x00\x01\xff", frame{0, []byte{0xff}}, nil},
		"the largest":       {"O\x00\x01\x00\x00" + strings.Repeat("x", 1<<16), frame{'O', bytes.Repeat([]byte("x"), 1<<16)}, nil},
		"one byte larger":   {"O\x00\x01\x00\x01" + strings.Repeat("x", 1<<16+1), frame{}, errFrame},
		"4 GB":              {"O\xff\xff\xff\xff", frame{}, errFrame},
		"nothing":           {"", frame{}, io.EOF},
		"half a header":     {"O\x00\x00", frame{}, io.ErrUnexpectedEOF},
		"a header alone":    {"O\x00\x00\x00\x02", frame{}, io.EOF},
		"half of a payload": {"O\x00\x00\x00\x02h", frame{}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readFrame(bufio.NewReader(strings.NewReader(test.data)))
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Fatalf("the error is %v, not %v", err, test.err)
			}
			if got.kind != test.want.kind || !bytes.Equal(got.payload, test.want.payload) {
				t.Errorf("the frame is %q %.40q", got.kind, got.payload)
			}
		})
	}
}

// A payload is kept while later ones are read.
func TestReadFrameAllocates(t *testing.T) {
	in := bufio.NewReader(strings.NewReader("O\x00\x00\x00\x01aO\x00\x00\x00\x01b"))
	first, err := readFrame(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(in); err != nil {
		t.Fatal(err)
	}
	if string(first.payload) != "a" {
		t.Errorf("the first payload became %q", first.payload)
	}
}

func TestFrameWriterChunks(t *testing.T) {
	for size, want := range map[int]int{0: 0, 1: 1, chunkBytes - 1: 1, chunkBytes: 1, chunkBytes + 1: 2, 3 * chunkBytes: 3} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i % 251)
		}
		var sent bytes.Buffer
		out := frameWriter{w: bufio.NewWriter(&sent)}
		if err := errors.Join(out.chunks(kindData, data), out.w.Flush()); err != nil {
			t.Fatal(err)
		}
		var got []byte
		frames := 0
		for in := bufio.NewReader(&sent); ; frames++ {
			f, err := readFrame(in)
			if err != nil {
				break
			}
			if f.kind != kindData || len(f.payload) == 0 || len(f.payload) > chunkBytes {
				t.Errorf("%d bytes: a frame %q of %d bytes", size, f.kind, len(f.payload))
			}
			got = append(got, f.payload...)
		}
		if frames != want || !bytes.Equal(got, data) {
			t.Errorf("%d bytes became %d frames of %d bytes", size, frames, len(got))
		}
	}
}

func TestFieldsNumber(t *testing.T) {
	for text, want := range map[string]int64{
		"n=0": 0, "n=7\n": 7, "a=b\nn=7\nc=d": 7, "n=1\nn=2\n": 2, "n=100": 100,
		"": -1, "n": -1, "n=": -1, "n=-1": -1, "n=101": -1, "n=1.0": -1, "n=1e1": -1, "n= 1": -1, "n=1 ": -1, "n=0x1": -1,
		"n=1_0": -1, "m=1": -1, "n=9223372036854775808": -1, "n=1=2": -1, "\x00n=1": -1, "n=١": -1,
	} {
		got, err := parseFields([]byte(text)).number("n", 100)
		switch {
		case want < 0 && !errors.Is(err, errFrame):
			t.Errorf("%q: the error is %v", text, err)
		case want >= 0 && (err != nil || got != want):
			t.Errorf("%q is %d, %v; not %d", text, got, err, want)
		}
	}
}

func TestFieldsNumberBoundsItsError(t *testing.T) {
	_, err := parseFields([]byte("n="+strings.Repeat("9", 60000))).number("n", math.MaxInt64)
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("the error is %.300v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("O\x00\x00\x00\x02hi"))
	f.Add([]byte("Z\x00\x00\x00\x00"))
	f.Add([]byte("O\xff\xff\xff\xff"))
	f.Add([]byte("O\x00\x00\x00\x02h"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readFrame(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		if len(got.payload) > maxFrameBytes {
			t.Errorf("a payload of %d bytes", len(got.payload))
		}
		again := binary.BigEndian.AppendUint32([]byte{got.kind}, uint32(len(got.payload)))
		if again = append(again, got.payload...); !bytes.HasPrefix(data, again) {
			t.Errorf("%q was read as %q", data, again)
		}
	})
}
