// Package runner drives the supervisor, the Python program that is PID 1 of
// every sandbox (execution/supervisor), over the one stream that a
// backend gives.
//
// Both sides send frames: one byte of kind, four bytes of big-endian length,
// the payload. The server says
//
//	J  a job's limits, as lines "name=number"
//	C  some of the code            I  some of stdin
//	V  some of the variables, each as NAME=VALUE and NUL
//	W  some of the arguments, each followed by NUL
//	F  the path of a file to stage D  some of its bytes
//	   (a session also takes one that ends with "/", for a folder, and NUL and "x"
//	   after one of a file that is executable)
//	G  go                          P  a ping, at any time
//
// and in a session besides
//
//	N  never mind: the job is not sent to its end
//	K  the call is called off      Y  a server has come: a nonce
//	H  the report that the interpreter has ended was received
//	U  until when the session lasts, at any time: lines
//
// where the payload of whatever follows a Y begins with its tag, the nonce's first
// bytes: what one server says can arrive among what the next one does,
// and the supervisor says
//
//	P  a pong: the answer to a ping, or a sign of life in work that takes long
//	R  ready: at first lines such as "protocol=3", "python=3.13.5",
//	   "isolation=run" and "bare=1"; after each run but the last how long cleaning took
//	A  the code is being let go: from here on the run counts
//	O  some of stdout              E  some of stderr
//	X  the program has ended, and everything it left: lines of facts
//	B  one form of a value that the program displayed: "1" if it is the first
//	   form of the value, else "0", and a media type; followed by
//	D  some of its data
//	F  the path of a file that the run made or changed, followed by
//	D  some of its bytes
//	T  the file that was begun does not come whole, and why (sessions)
//	S  a file that is not returned: path, NUL, reason
//	Z  that was all                !  the job could not be staged: lines
//	M  a file, a folder or a link of the workspace: kind, size, milliseconds since
//	   1970, 1 if it is executable, path. Its bytes may follow (sessions)
//	Y  the nonce of a server that has come (sessions)
//	L  lost: what came is not a frame. Only a Y is read from now on (sessions)
//	G  gone: the supervisor ends, and why: what it also writes to its stderr. At any
//	   time, once
//
// A supervisor shows a sign of life within 2 s whenever this side waits for it
// (pulse). One that does not is given up, and its sandbox destroyed.
//
// A supervisor that receives nothing for a while, pings included, ends itself and
// with it the sandbox, so that a sandbox outlives neither its server nor its
// engine. That of a session ends at the session's time instead, and takes one
// server after the other (session.py).
//
// The supervisor's reports are not trusted: a bug in the kernel or in Python might
// give its place to the program. Every frame is checked and bounded here, and
// the deadline is this side's.
package runner

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The kinds of frames.
const (
	kindJob     = 'J'
	kindCode    = 'C'
	kindStdin   = 'I'
	kindVars    = 'V'
	kindArgs    = 'W'
	kindFile    = 'F'
	kindData    = 'D'
	kindGo      = 'G'
	kindPing    = 'P'
	kindNever   = 'N'
	kindCallOff = 'K'
	kindSync    = 'Y'
	kindHeard   = 'H'
	kindUntil   = 'U'
	kindReady   = 'R'
	kindStarted = 'A'
	kindStdout  = 'O'
	kindStderr  = 'E'
	kindEnded   = 'X'
	kindForm    = 'B'
	kindTorn    = 'T'
	kindEntry   = 'M'
	kindSkipped = 'S'
	kindDone    = 'Z'
	kindFault   = '!'
	kindLost    = 'L'
	kindGone    = 'G' // of the supervisor; the server's is kindGo
)

const (
	headerBytes = 5
	// chunkBytes is how much of code, stdin or a file goes into one frame.
	chunkBytes = 64 << 10
	// maxFrameBytes is the largest payload that the supervisor may send: it
	// reads and sends 64 KB at a time, or a path and a reason.
	maxFrameBytes = 64 << 10
	// tagBytes are those of its nonce with which a session's server marks what it
	// says.
	tagBytes = 8
)

var errFrame = errors.New("the supervisor broke the protocol")

type frame struct {
	kind    byte
	payload []byte
}

// readFrame reads one frame. Its payload is freshly allocated.
func readFrame(r *bufio.Reader) (frame, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxFrameBytes {
		return frame{}, fmt.Errorf("%w: a frame of %d bytes", errFrame, size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return frame{}, err
	}
	return frame{kind: header[0], payload: payload}, nil
}

// frameWriter writes frames. Like a [bufio.Writer], it remembers its first
// error and returns it from then on, and from Flush.
type frameWriter struct {
	w   *bufio.Writer
	tag []byte // begins each payload
}

func (f frameWriter) frame(kind byte, payload []byte) error {
	var header [headerBytes]byte
	header[0] = kind
	binary.BigEndian.PutUint32(header[1:], uint32(len(f.tag)+len(payload)))
	_, _ = f.w.Write(header[:])
	_, _ = f.w.Write(f.tag)
	_, err := f.w.Write(payload)
	return err
}

// chunks sends data as frames of one kind, and none for no data.
func (f frameWriter) chunks(kind byte, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), chunkBytes)
		if err := f.frame(kind, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// fields are the lines "name=value" of some frames.
type fields map[string]string

// usualFields is how many there are in a frame: a map that has room for them from the
// beginning takes half the time to fill.
const usualFields = 16

func parseFields(payload []byte) fields {
	values := make(fields, usualFields)
	for line := range strings.Lines(string(payload)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[name] = value
	}
	return values
}

// number returns a field that must be a number from 0 up to limit.
func (f fields) number(name string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(f[name], 10, 64)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%w: field %s=%.40q", errFrame, name, f[name])
	}
	return n, nil
}
