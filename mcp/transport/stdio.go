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

// lastWords is how long a client that has left, or is left, gets to read what is
// still to be said: it may have closed its end of one pipe alone, or read neither.
const lastWords = 3 * time.Second

// ServeStdio serves one client until in ends, out cannot be written to or ctx
// ends, which are all the normal end. Nothing but the protocol is written to out.
// A read or a write that does not come back is left behind.
func (t *Transports) ServeStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	p := t.newPeer("stdio")
	var budget *execution.Budget
	if t.opts.InFlightBytes > 0 {
		budget = execution.NewBudget(t.opts.InFlightBytes)
	}
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
	err = p.listen(requests, in, budget)
	if errors.Is(err, io.EOF) {
		cancel(ErrClosed)
		err = nil
	}
	cancel(nil)
	p.finish(written)
	return err
}

// ErrClosed is why the calls end of a client that has closed its stdin.
var ErrClosed = errors.New("the client closed stdin before the call ended")

// listen takes each line until there are no more, which is [io.EOF], ctx ends or
// nobody reads the answers.
func (p *peer) listen(ctx context.Context, in io.Reader, budget *execution.Budget) error {
	lines, over := make(chan []byte), make(chan error, 1)
	go func() { over <- p.readLines(ctx, in, lines) }()
	for {
		select {
		case line := <-lines:
			p.takeLine(ctx, line, budget)
		case err := <-over:
			return err
		case <-ctx.Done():
			return nil
		case <-p.left:
			return nil
		}
	}
}

// takeLine takes a line, if there is memory for it. What calls off a request is
// always taken.
func (p *peer) takeLine(ctx context.Context, line []byte, budget *execution.Budget) {
	if line == nil {
		fault := fmt.Sprintf("the message has more than %d MB, as many as a request may have", p.opts.MaxMessageBytes>>20)
		p.tellNow(ctx, errorAnswer(nil, mcpsdk.INVALID_REQUEST, fault))
		return
	}
	account := budget.Open("")
	defer account.Close()
	e, code := open(line), mcpsdk.INVALID_REQUEST
	err := wire.Check(line)
	if err == nil && !e.isNotification() {
		err = account.Take(wire.RequestBytes + wire.BodyTimes*int64(len(line)))
		code = codeBusy
	}
	if err == nil {
		p.take(execution.WithAccount(ctx, account), line)
		return
	}
	var id any
	if len(e.ID) <= maxRepeated {
		id, _ = e.id()
	}
	p.tellNow(ctx, errorAnswer(id, code, err.Error()))
}

// codeBusy is for a request that may be sent again later. JSON-RPC leaves such codes
// to servers.
const codeBusy = -32000

// readLines reads lines that are not empty. One that is too long is nil, and nothing
// of it is kept.
func (p *peer) readLines(ctx context.Context, in io.Reader, lines chan<- []byte) error {
	for reader := bufio.NewReader(in); ; {
		line, tooLong, err := readLine(reader, p.opts.MaxMessageBytes)
		if line = bytes.TrimSpace(line); len(line) > 0 || tooLong {
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

// readLine reads a line of at most most bytes, or any number where that is zero. Of a
// longer one it keeps nothing.
func readLine(reader *bufio.Reader, most int64) (line []byte, tooLong bool, err error) {
	for {
		piece, err := reader.ReadSlice('\n')
		if tooLong = tooLong || most > 0 && int64(len(line)+len(piece)) > most; tooLong {
			line, piece = nil, nil
		}
		line = append(line, piece...)
		if err != bufio.ErrBufferFull { //nolint:errorlint // bufio returns it as it is
			return line, tooLong, err
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
