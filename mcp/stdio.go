package mcp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"time"
)

// lastWords is how long a client that has left, or is left, gets to read what is
// still to be said: it may have closed its end of one pipe alone, or read neither.
const lastWords = 3 * time.Second

// ServeStdio serves one client until in ends, out cannot be written to or ctx
// ends, which are all the normal end. Nothing but the protocol is written to out.
// A read or a write that does not come back is left behind.
func (s *Server) ServeStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	p := s.newPeer("stdio")
	requests, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	requests, err := p.join(requests)
	if err != nil {
		return err
	}
	defer p.part(ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		p.write(func(message []byte) error {
			_, err := out.Write(append(message, '\n'))
			return err
		}, nil)
	}()
	err = p.listen(requests, in)
	if errors.Is(err, io.EOF) {
		cancel(errClosed)
		err = nil
	}
	cancel(nil)
	p.finish(written)
	return err
}

// errClosed is why the calls end of a client that has closed its stdin.
var errClosed = errors.New("the client closed stdin before the call ended")

// listen takes each line until there are no more, which is [io.EOF], ctx ends or
// nobody reads the answers.
func (p *peer) listen(ctx context.Context, in io.Reader) error {
	lines, over := make(chan []byte), make(chan error, 1)
	go func() { over <- p.readLines(ctx, in, lines) }()
	for {
		select {
		case line := <-lines:
			p.take(ctx, line)
		case err := <-over:
			return err
		case <-ctx.Done():
			return nil
		case <-p.left:
			return nil
		}
	}
}

// readLines reads lines that are not empty.
func (p *peer) readLines(ctx context.Context, in io.Reader, lines chan<- []byte) error {
	for reader := bufio.NewReader(in); ; {
		line, err := reader.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			select {
			case lines <- line:
			case <-ctx.Done():
				return nil
			case <-p.left:
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// finish waits until all requests, whose context has ended, are answered and the
// answers are written, for a moment.
func (p *peer) finish(written <-chan struct{}) {
	moment, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	answered := make(chan struct{})
	go func() {
		p.requests.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-moment.Done():
	}
	p.leave()
	select {
	case <-written:
	case <-moment.Done():
	}
}
