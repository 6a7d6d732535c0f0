package execution

import (
	"context"
	"sync"
)

// Turns bounds how many requests of an owner do something at once that slows
// others down. One too many waits for those of the same owner alone. It is safe for
// concurrent use.
type Turns struct {
	most int

	mu sync.Mutex
	of map[Owner]*line
}

// line is an owner's requests.
type line struct {
	turns chan struct{} // one element for each that has its turn
	total int           // those that wait included
}

// NewTurns makes Turns for so many at once.
func NewTurns(most int) *Turns { return &Turns{most: most, of: make(map[Owner]*line)} }

// Take waits for a turn of the request's owner, which leave ends. Where ctx has
// ended before, the error has code [Cancelled].
func (t *Turns) Take(ctx context.Context) (leave func(), err error) {
	owner := OwnerOf(ctx)
	l := t.join(owner)
	select {
	case l.turns <- struct{}{}:
		return func() {
			<-l.turns
			t.part(owner)
		}, nil
	case <-ctx.Done():
		t.part(owner)
		return nil, &Error{Code: Cancelled, Message: "the caller left", Err: context.Cause(ctx)}
	}
}

func (t *Turns) join(owner Owner) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.of[owner]
	if l == nil {
		l = &line{turns: make(chan struct{}, t.most)}
		t.of[owner] = l
	}
	l.total++
	return l
}

func (t *Turns) part(owner Owner) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[owner].total--; t.of[owner].total == 0 {
		delete(t.of, owner)
	}
}
