package runner

import (
	"context"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// postmortemTime is how long a backend may take to find out why a sandbox ended, while the
// request waits. A kubelet looks once a second and then reports to its API server.
const postmortemTime = 5 * time.Second

// loss is what is known of the end of a sandbox under its program.
type loss struct {
	why    string // "" where nothing is known
	memory bool   // it was ended for memory
}

// loss asks the backend why the stream has ended under a program, unless this side has given
// it up.
func (s *stream) loss(ctx context.Context, r *report) loss {
	backend, able := s.instance.(execution.Postmortem)
	if !able || r.ended || s.broken.Load() || !s.hasEnded() {
		return loss{}
	}
	ctx, cancel := context.WithTimeout(ctx, postmortemTime)
	defer cancel()
	why, memory := backend.Postmortem(ctx)
	return loss{shown(why, maxReason), memory}
}

func (s *stream) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// after returns a message that ends with why the sandbox was lost or, where nothing is known,
// with guesses.
func (l loss) after(message, guesses string) string {
	switch {
	case l.why != "":
		return message + ": " + l.why
	case guesses != "" && !l.memory:
		return message + " (" + guesses + ")"
	}
	return message
}
