// Package render turns results into what a model reads.
//
// A model pays for every line, and some clients show it nothing but text. So an answer is one
// text that is complete: the output, then remarks in brackets. Pictures and links to files
// follow as content of their own. Whatever comes from a program is cleaned of escape sequences
// and invisible characters, and everything is bounded in size, memory and time.
package render

import (
	"context"
	"runtime"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/filestore"
)

// How many copies of a value exist at once. Requests are charged accordingly.
const (
	answerTimes = 4 // of what an answer contains: as content, as JSON, and as it is sent
	loadTimes   = 2 // of a file that is read into a growing buffer
	cleanTimes  = 4 // of an output that is cleaned
	textTimes   = 8 // of a text that is shown: some of its characters are escaped in JSON
)

// Files reads stored files.
type Files interface {
	Get(ctx context.Context, id string) (*filestore.File, error)
}

// Options configure a [Renderer].
type Options struct {
	// Files has the files that results refer to by id.
	Files Files
	// FileURL returns the URL of a stored file, or "" if it has none.
	FileURL func(ctx context.Context, id string) string
	// Limits and Settings are the sandbox's. Remarks name them.
	Limits   execution.Limits
	Settings execution.Settings
	// SessionTTL is how long a session that a call starts may last.
	SessionTTL time.Duration
	// OutputBytes is how much of a program's output is shown.
	OutputBytes int
}

// Renderer renders results. It is safe for concurrent use.
type Renderer struct {
	opts Options
	// decoding bounds how many pictures are decoded at once. Half of the processors remain
	// for everything else.
	decoding chan struct{}
}

// New returns a Renderer.
func New(opts Options) *Renderer {
	return &Renderer{opts: opts, decoding: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Reserve charges a request for the text of its answer. Call it before anything runs:
// afterwards there would be no way to undo what the program has done.
func (r *Renderer) Reserve(ctx context.Context) error {
	return execution.AccountOf(ctx).Take(textTimes * int64(r.opts.OutputBytes))
}
