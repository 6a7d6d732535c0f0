package executiontest

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Backend is an [execution.Backend] in memory: its instances speak the
// supervisor's protocol (package runner has it in full), and run [Program]s.
// The zero value works. It is safe for concurrent use.
type Backend struct {
	// Program is what every instance runs. Do not change it later.
	Program Program
	// Fail, if not nil, is asked before each operation, "resolve", "start",
	// "sweep" and "health", and its error is the operation's. Do not change it
	// later.
	Fail func(operation string) error

	mu   sync.Mutex
	live map[*instance]bool
}

var _ execution.Backend = (*Backend)(nil)

func (b *Backend) fault(ctx context.Context, operation string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if b.Fail != nil {
		return b.Fail(operation)
	}
	return nil
}

// Resolve returns a digest made of the image's name.
func (b *Backend) Resolve(ctx context.Context, image string) (string, error) {
	if err := b.fault(ctx, "resolve"); err != nil {
		return "", err
	}
	return "sha256:" + image, nil
}

// Start starts an instance.
func (b *Backend) Start(ctx context.Context, _ execution.Spec) (execution.Instance, error) {
	if err := b.fault(ctx, "start"); err != nil {
		return nil, err
	}
	server, inside := net.Pipe()
	i := &instance{Conn: server, backend: b, inside: inside}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live == nil {
		b.live = make(map[*instance]bool)
	}
	b.live[i] = true
	i.supervisor.Go(func() { supervise(inside, b.Program) })
	return i, nil
}

// Sweep finds nothing: instances cannot be lost.
func (b *Backend) Sweep(ctx context.Context) (int, error) { return 0, b.fault(ctx, "sweep") }

// Health returns the error of Fail.
func (b *Backend) Health(ctx context.Context) error { return b.fault(ctx, "health") }

// Live returns how many instances were started and not destroyed.
func (b *Backend) Live() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.live)
}

// KillAll ends all instances from within, as an engine that restarts does.
func (b *Backend) KillAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.live {
		_ = i.inside.Close()
	}
}

// instance is the server's end of a supervisor's stream.
type instance struct {
	net.Conn
	backend    *Backend
	inside     net.Conn
	supervisor sync.WaitGroup
}

func (i *instance) Diagnostics() string { return "" }

// Detach ends the instance, since it belongs to no session.
func (i *instance) Detach() { _ = i.Close() }

// Destroy ends the instance and waits for its program, which heeds its context.
func (i *instance) Destroy(context.Context) error {
	_ = i.Close()
	_ = i.inside.Close()
	i.supervisor.Wait()
	i.backend.mu.Lock()
	defer i.backend.mu.Unlock()
	delete(i.backend.live, i)
	return nil
}

// Kill ends the instance, as Destroy does.
func (i *instance) Kill(ctx context.Context) error { return i.Destroy(ctx) }

// supervise acts as the supervisor: it receives one job, runs it and reports it.
func supervise(conn net.Conn, program Program) {
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	send := func(kind byte, payload string) {
		frame := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))
		_, _ = conn.Write(append(frame, payload...)) // the server may be gone
	}
	send('R', "protocol=3\npython=3.0.0\n")
	in := bufio.NewReader(conn)
	pong := func() { send('P', "") }
	req, limit, err := readJob(in, pong)
	if err != nil {
		return
	}
	go func() {
		defer cancel()
		answerPings(in, pong) // until the server goes
	}()
	send('A', "")
	started := time.Now()
	outcome := program.run(ctx, req)
	wall := time.Since(started)
	sendOutput(send, 'O', outcome.Stdout, limit)
	sendOutput(send, 'E', outcome.Stderr, limit)
	send('X', fmt.Sprintf("exit_code=%d\nsignal=0\ntimed_out=0\nwall_us=%d\nkill_us=0\ncpu_us=0\npeak_kb=0\n"+
		"memory_kills=0\nrefused_processes=0\nfull=0\n", outcome.ExitCode, wall.Microseconds()))
	for _, file := range outcome.Files {
		send('F', file.Path)
		sendChunks(send, 'D', string(file.Content))
	}
	send('Z', "")
}

// sendOutput sends what is within the limit, and an empty frame where something
// is left out.
func sendOutput(send func(byte, string), kind byte, text string, limit int) {
	sendChunks(send, kind, text[:min(len(text), limit)])
	if len(text) > limit {
		send(kind, "")
	}
}

func sendChunks(send func(byte, string), kind byte, text string) {
	const chunk = 64 << 10
	for text != "" {
		n := min(len(text), chunk)
		send(kind, text[:n])
		text = text[n:]
	}
}

// answerPings reads pings to the end of the stream.
func answerPings(in io.Reader, pong func()) {
	for {
		if _, _, err := readFrame(in); err != nil {
			return
		}
		pong()
	}
}

// readJob reads a job, and how much output it may make.
func readJob(in io.Reader, pong func()) (req execution.Request, outputLimit int, err error) {
	var files []execution.File
	var variables, arguments string
	for {
		kind, payload, err := readFrame(in)
		if err != nil {
			return req, 0, err
		}
		switch kind {
		case 'P':
			pong()
		case 'J':
			req.Timeout, req.Interactive, outputLimit = readLimits(payload)
		case 'C':
			req.Code += payload
		case 'I':
			req.Stdin += payload
		case 'V':
			variables += payload
		case 'W':
			arguments += payload
		case 'F':
			files = append(files, execution.File{Path: payload})
		case 'D':
			file := &files[len(files)-1]
			file.Content = append(file.Content, payload...)
		case 'G':
			for _, file := range files {
				req.Files = append(req.Files, execution.Inline(file.Path, file.Content))
			}
			req.Env, req.Args = readEnvironment(variables, arguments)
			return req, outputLimit, nil
		}
	}
}

// readEnvironment reads variables and arguments, each followed by NUL.
func readEnvironment(variables, arguments string) (env map[string]string, args []string) {
	if variables != "" {
		env = make(map[string]string)
		for variable := range strings.SplitSeq(strings.TrimSuffix(variables, "\x00"), "\x00") {
			name, value, _ := strings.Cut(variable, "=")
			env[name] = value
		}
	}
	if arguments != "" {
		args = strings.Split(strings.TrimSuffix(arguments, "\x00"), "\x00")
	}
	return env, args
}

// readLimits reads the limits of a job that a fake applies.
func readLimits(payload string) (timeout time.Duration, interactive bool, outputBytes int) {
	for line := range strings.Lines(payload) {
		var number int
		name, value, _ := strings.Cut(line, "=")
		_, _ = fmt.Sscan(value, &number)
		switch name {
		case "timeout_ms":
			timeout = time.Duration(number) * time.Millisecond
		case "interactive":
			interactive = number == 1
		case "output_bytes":
			outputBytes = number
		}
	}
	return timeout, interactive, outputBytes
}

func readFrame(in io.Reader) (kind byte, payload string, err error) {
	var header [5]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return 0, "", err
	}
	data := make([]byte, binary.BigEndian.Uint32(header[1:]))
	_, err = io.ReadFull(in, data)
	return header[0], string(data), err
}
