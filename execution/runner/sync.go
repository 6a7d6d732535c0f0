package runner

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

const (
	// syncTime bounds the wait for a supervisor that shows life to notice a new
	// server. It may have to wait for a call of the last one's.
	syncTime = callOffTime + 2*time.Second
	// pongTime is how soon after its answer a new server gets the first pong.
	pongTime = 1 * time.Second
)

// sync finds the place in the stream where the supervisor's answers to this server
// begin. Neither side knows which frames an earlier server has left incomplete.
func (c *sessionConn) sync(ctx context.Context) error {
	nonce := []byte(rand.Text())
	c.stream.pulse.set(busy)
	defer c.stream.pulse.set(atRest)
	found := make(chan struct{})
	go c.stream.read(func(in *bufio.Reader) error {
		err := skipPast(in, encode(kindSync, nonce))
		if err == nil {
			close(found)
		}
		return err
	})
	// More than the rest of any frame; where one would begin they are none.
	zeros := make([]byte, headerBytes+maxFrameBytes+chunkBytes)
	err := (&sender{stream: c.stream, left: syncTime}).write(ctx, func(out frameWriter) error {
		_, _ = out.w.Write(zeros)
		_ = out.frame(kindSync, nonce)
		c.stream.out.tag = nonce[:tagBytes]
		return out.w.Flush()
	})
	if err != nil {
		return err
	}
	if err := c.await(ctx, found, syncTime); err != nil {
		return err
	}
	// A supervisor of an earlier version answers no pings, so none are expected of
	// it. Ours sends the first pong with its answer.
	err = c.await(ctx, c.stream.pulse.answers, pongTime)
	if errors.Is(err, errLate) {
		c.stream.pulse.deaf.Store(true)
		return nil
	}
	return err
}

// await waits for something of the sandbox.
func (c *sessionConn) await(ctx context.Context, what <-chan struct{}, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	c.stream.pulse.wait()
	defer c.stream.pulse.resume()
	select {
	case <-what:
		return nil
	case <-c.stream.silent:
		return errSilent
	case <-c.stream.ended:
		return c.stream.readErr
	case <-timer.C:
		return errLate
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// encode returns a frame's bytes.
func encode(kind byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload))), payload...)
}

// skipPast reads up to the end of a mark.
func skipPast(in *bufio.Reader, mark []byte) error {
	window := make([]byte, 0, 2*len(mark))
	for !bytes.HasSuffix(window, mark) {
		b, err := in.ReadByte()
		if err != nil {
			return err
		}
		if len(window) == cap(window) {
			window = window[:copy(window, window[len(mark):])]
		}
		window = append(window, b)
	}
	return nil
}
