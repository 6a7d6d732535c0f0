package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/wire"
)

// finishTime bounds how long the last answers wait for their client at the end: it may have
// closed only one of its pipes, or read neither.
const finishTime = 3 * time.Second

// ErrClosed is the cancellation cause of calls whose client has closed its stdin.
var ErrClosed = errors.New("the client closed stdin before the call ended")

// ServeStdio serves one client until in ends, out fails or ctx ends, none of which is an
// error. It writes nothing but messages of the protocol to out. It does not wait for a read or
// a write that does not return.
func (t *Transports) ServeStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	p := t.newPeer("stdio")
	var budget *execution.Budget
	if t.opts.InFlightBytes > 0 {
		budget = execution.NewBudget(t.opts.InFlightBytes)
	}
	requests, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	requests, err := p.register(requests)
	if err != nil {
		return err
	}
	defer p.unregister(ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		p.writeAll(func(message []byte) error {
			_, err := out.Write(append(message, '\n'))
			return err
		}, nil)
	}()
	err = p.receiveLines(requests, in, budget)
	if errors.Is(err, io.EOF) {
		cancel(ErrClosed)
		err = nil
	}
	cancel(nil)
	p.finish(written)
	return err
}

// receiveLines handles lines until there are no more, which is [io.EOF], or ctx ends, or the
// client reads no more.
func (p *peer) receiveLines(ctx context.Context, in io.Reader, budget *execution.Budget) error {
	lines, over := make(chan []byte), make(chan error, 1)
	go func() { over <- p.readLines(ctx, in, lines) }()
	for {
		select {
		case line := <-lines:
			p.receiveLine(ctx, line, budget)
		case err := <-over:
			return err
		case <-ctx.Done():
			return nil
		case <-p.closed:
			return nil
		}
	}
}

// receiveLine handles a line, nil if it was too long, unless it exceeds a limit or the memory
// for requests is spent. Notifications, such as cancellations, need no memory.
func (p *peer) receiveLine(ctx context.Context, line []byte, budget *execution.Budget) {
	if line == nil {
		fault := fmt.Sprintf("the message is too large: at most %d MB are allowed (MAX_BODY_MB)", p.opts.MaxMessageBytes>>20)
		p.sendBeforeReading(ctx, errorAnswer(nil, mcpsdk.INVALID_REQUEST, fault))
		return
	}
	account := budget.Open("")
	defer account.Close()
	if err := wire.Check(line); err != nil {
		p.sendBeforeReading(ctx, errorAnswer(parseID(line).repeatableID(), mcpsdk.INVALID_REQUEST, err.Error()))
		return
	}
	m := parse(line)
	if !m.isNotification() {
		if err := account.Take(wire.RequestBytes + wire.BodyTimes*int64(len(line))); err != nil {
			p.sendBeforeReading(ctx, errorAnswer(m.repeatableID(), codeBusy, err.Error()))
			return
		}
	}
	p.receive(execution.WithAccount(ctx, account), m)
}

// readLines reads lines that are not empty. One that is too long is nil, and nothing of it is
// kept.
func (p *peer) readLines(ctx context.Context, in io.Reader, lines chan<- []byte) error {
	for reader := bufio.NewReader(in); ; {
		line, tooLong, err := readLine(reader, p.opts.MaxMessageBytes)
		if line = bytes.TrimSpace(line); len(line) > 0 || tooLong {
			select {
			case lines <- line:
			case <-ctx.Done():
				return nil
			case <-p.closed:
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// readLine reads a line of at most limit bytes, or of any length if that is zero. It keeps
// nothing of a longer one.
func readLine(reader *bufio.Reader, limit int64) (line []byte, tooLong bool, err error) {
	for {
		piece, err := reader.ReadSlice('\n')
		if tooLong = tooLong || limit > 0 && int64(len(line)+len(piece)) > limit; tooLong {
			line, piece = nil, nil
		}
		line = append(line, piece...)
		if err != bufio.ErrBufferFull { //nolint:errorlint // bufio returns it unwrapped
			return line, tooLong, err
		}
	}
}

// finish waits until all requests, whose context has ended, are answered and the answers are
// written, but no longer than finishTime.
func (p *peer) finish(written <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	answered := make(chan struct{})
	go func() {
		p.requests.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-ctx.Done():
	}
	p.close()
	select {
	case <-written:
	case <-ctx.Done():
	}
}
