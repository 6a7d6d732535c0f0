package local

import (
	"context"
	"io"
	"sync"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// maxCompiledBytes is how much the supervisor may have, compiled. It has 150 KB.
const maxCompiledBytes = 1 << 20

// beginning is what a sandbox begins with: PID 1's command line, of which the first word
// is replaced by the interpreter's path, and files that it needs.
type beginning struct {
	command []string
	files   []file
}

// compiled is the supervisor as an interpreter has compiled it.
type compiled struct {
	mu      sync.Mutex
	started bool // somebody has started from source
	tried   bool
	data    []byte // nil where there is none
}

// begin returns what a sandbox begins with. Where each run has a start of its own, a
// quarter of that is to compile the supervisor: all but the first find it compiled. The
// first does not wait for that: it may be the only one.
func (b *Backend) begin(ctx context.Context, spec execution.Spec, p python) beginning {
	source := beginning{command: b.opts.Command.Line(spec)}
	if spec.Isolation == execution.IsolationRun || spec.Isolation == execution.IsolationSession {
		return source
	}
	c := p.compiled
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started && !c.tried {
		c.data = b.compile(ctx, spec, p)
		c.tried = ctx.Err() == nil
	}
	c.started = true
	if c.data == nil {
		return source
	}
	return beginning{b.opts.Command.CompiledLine(spec, compiledFile), []file{{Path: compiledFile, Data: c.data}}}
}

// compile has an interpreter compile the supervisor, in a sandbox. Where it does not, it
// gives nil: started from source, the supervisor says what is wrong.
func (b *Backend) compile(ctx context.Context, spec execution.Spec, p python) []byte {
	i, err := b.startPiped(ctx, spec, p, beginning{command: b.opts.Command.CompileLine()})
	if err != nil {
		return nil
	}
	stop := context.AfterFunc(ctx, i.process.kill)
	defer stop()
	data, err := io.ReadAll(io.LimitReader(i, maxCompiledBytes+1))
	_ = i.Destroy(context.WithoutCancel(ctx)) // what is left of it the sweep finds
	if err != nil || len(data) > maxCompiledBytes || !i.process.succeeded() {
		return nil
	}
	return data
}
