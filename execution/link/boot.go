package link

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Boot is what PID 1 of a blank sandbox becomes. The program link.py documents how it takes it.
type Boot struct {
	// Generation is 1 for a blank. Each reset adds one.
	Generation int
	// Texts are those of supervisor.Command.Boot.
	Texts []string
	// Environment is added to that of PID 1 and of programs, each as NAME=VALUE.
	Environment []string
	// OwnNetwork demands that the sandbox has a network of its own, which leads nowhere.
	OwnNetwork bool
	// Lasting means that the sandbox is a session's: servers come and go.
	Lasting bool
	// Zygotes means that the sandbox serves many runs.
	Zygotes bool
	// Filter is the seccomp filter of the sandbox, for one that has none. Empty means none.
	Filter []byte
	// Limits are limits of processes (setrlimit(2)). A lower one that holds already stays.
	Limits []Limit
}

// Limit is a limit of processes.
type Limit struct {
	// Resource is a number of Linux, such as unix.RLIMIT_NOFILE.
	Resource int
	Most     uint64
}

// The kinds of frames with which a server boots a sandbox. Package runner documents their form.
const (
	kindSettings = 'B'
	kindPart     = 'C'
	kindGo       = 'G'
)

// chunkBytes is how much goes into one frame.
const chunkBytes = 64 << 10

// Send has PID 1 become a supervisor. What that sends comes next on the connection.
func (b Boot) Send(w io.Writer) error {
	_, err := w.Write(b.frames())
	return err
}

// frames returns what a server sends.
func (b Boot) frames() []byte {
	var all bytes.Buffer
	appendFrame(&all, kindSettings, b.settings())
	for part := range slices.Chunk(b.pack(), chunkBytes) {
		appendFrame(&all, kindPart, part)
	}
	appendFrame(&all, kindGo, nil)
	return all.Bytes()
}

// settings returns the settings as lines.
func (b Boot) settings() []byte {
	var lines bytes.Buffer
	fmt.Fprintf(&lines, "generation=%d\nown_network=%d\nlasting=%d\nzygotes=%d\nvariables=%d\nfilter=%x\n",
		b.Generation, number(b.OwnNetwork), number(b.Lasting), number(b.Zygotes), len(b.Environment), b.Filter)
	for _, limit := range b.Limits {
		fmt.Fprintf(&lines, "limit_%d=%d\n", limit.Resource, limit.Most)
	}
	return lines.Bytes()
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}

// pack returns the variables and the texts, joined by zero bytes and compressed.
func (b Boot) pack() []byte {
	var packed bytes.Buffer
	w, _ := zlib.NewWriterLevel(&packed, zlib.BestSpeed) // a level that exists
	_, _ = io.WriteString(w, strings.Join(slices.Concat(b.Environment, b.Texts), "\x00"))
	_ = w.Close() // a bytes.Buffer takes everything
	return packed.Bytes()
}

func appendFrame(to *bytes.Buffer, kind byte, payload []byte) {
	to.WriteByte(kind)
	_ = binary.Write(to, binary.BigEndian, uint32(len(payload)))
	to.Write(payload)
}
