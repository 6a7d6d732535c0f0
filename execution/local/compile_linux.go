package local

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// maxCompiledBytes bounds the compiled supervisor, which has 350 KB at most.
const maxCompiledBytes = 1 << 20

// beginning is what a sandbox starts with: PID 1's command line, whose first element is
// replaced by the interpreter's path, and the compiled supervisor that it reads, if any.
type beginning struct {
	command  []string
	compiled []byte
}

// open returns the compiled supervisor as a file in memory. It has no name that programs
// could see, and is gone when the supervisor closes it.
func (b beginning) open() (*os.File, error) {
	fd, err := unix.MemfdCreate("supervisor", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	made := os.NewFile(uintptr(fd), "supervisor")
	_, err = made.Write(b.compiled)
	if err == nil {
		_, err = made.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, made.Close())
	}
	return made, nil
}

// compiled is the supervisor as an interpreter has compiled it, for each kind of sandbox.
type compiled struct {
	mu    sync.Mutex
	forms map[execution.Isolation]form
}

func newCompiled() *compiled { return &compiled{forms: make(map[execution.Isolation]form)} }

// form is the compiled supervisor for one kind of sandbox.
type form struct {
	started bool // a sandbox has started from source
	tried   bool
	data    []byte // nil where there is none
}

// begin returns what a sandbox starts with. Compiling the supervisor is a quarter of a start.
// So it is compiled once for each interpreter, and remembered also by later servers and
// commands. Where nothing is remembered, the first sandbox does not wait for the compiled
// form, since there may be no second.
func (b *Backend) begin(ctx context.Context, spec execution.Spec, p python) beginning {
	p.compiled.mu.Lock()
	defer p.compiled.mu.Unlock()
	c := p.compiled.forms[spec.Isolation]
	if !c.tried {
		if known := openCache("vivarium-compiled"); c.started || known.folder != "" {
			c.data = b.compiledFor(ctx, spec, p, known)
			c.tried = ctx.Err() == nil
		}
	}
	c.started = true
	p.compiled.forms[spec.Isolation] = c
	if c.data == nil {
		return beginning{command: b.opts.Command.Line(spec)}
	}
	return beginning{b.opts.Command.CompiledLine(spec), c.data}
}

// compiledFor returns the supervisor as an interpreter compiles it, or nil on failure.
func (b *Backend) compiledFor(ctx context.Context, spec execution.Spec, p python, known cache) []byte {
	key := p.digest + " " + b.opts.Command.CompileDigest(spec.Isolation)
	if data := known.get(key); data != nil {
		return data
	}
	data := b.compile(ctx, spec, p, b.opts.Command.CompileLine(spec.Isolation))
	if data != nil {
		known.put(key, data)
	}
	return data
}

// compile runs an interpreter in a sandbox to compile the supervisor. It returns nil on
// failure: then the supervisor starts from source, and reports the error itself.
func (b *Backend) compile(ctx context.Context, spec execution.Spec, p python, line []string) []byte {
	spec.Isolation = execution.IsolationContainer // nothing but a sandbox
	i, err := b.startPiped(ctx, spec, p, beginning{command: line})
	if err != nil {
		return nil
	}
	stop := context.AfterFunc(ctx, i.process.kill)
	defer stop()
	data, err := io.ReadAll(io.LimitReader(i, maxCompiledBytes+1))
	_ = i.Destroy(context.WithoutCancel(ctx)) // the sweep removes what is left
	if err != nil || len(data) > maxCompiledBytes || !i.process.succeeded() {
		return nil
	}
	return data
}
