package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
)

// contender is a side of the comparison: a binary with a server that is warm, or a bare side.
type contender struct {
	name     string
	launcher *launcher
	server   *server
	bare     bareSide      // nil for a binary
	pool     *cluster.Pool // whose pods are the sandboxes; nil for other kinds of sandboxes
}

// bareSide runs programs on an engine or a cluster with nothing in between.
type bareSide interface {
	way
	// settle waits until what runs have left is gone.
	settle(ctx context.Context) error
	// close removes what runs have left.
	close(ctx context.Context) error
}

// start starts the side's server and waits until it has a sandbox.
func (c *contender) start(ctx context.Context) (err error) {
	if c.server, err = c.launcher.serve(ctx); err != nil {
		return err
	}
	if _, err = c.server.ours.plain().run(ctx, programs()[0]); err != nil {
		return err
	}
	if sandboxes := c.launcher.sandboxes; sandboxes != nil {
		sandboxes.find(ctx, c.server.meter.instance)
	}
	return nil
}

// stop ends the server, or removes what the bare engine's runs have left.
func (c *contender) stop(ctx context.Context) error {
	switch {
	case c.bare != nil:
		return c.bare.close(ctx)
	case c.server != nil:
		return c.server.stop()
	}
	return nil
}

// warm returns the plain way to run a program, and what meters it.
func (c *contender) warm() (way, *meter) {
	if c.bare != nil {
		return c.bare, &meter{unmetered: true, sandboxes: c.launcher.sandboxes}
	}
	return c.server.ours.plain(), c.server.meter
}

// idle returns what the idle server and one of its idle sandboxes occupy, in MB.
func (c *contender) idle(ctx context.Context) []figure {
	s := c.server
	figures := []figure{{"idle server MB", memoryMB(s.meter.pid)}}
	if sandboxes := c.launcher.sandboxes; sandboxes != nil {
		return append(figures, sandboxes.memory(ctx, s.meter.instance)...)
	}
	// With version 2, the server has a group of its own beside those of sandboxes.
	return append(figures, figure{idleSandbox, s.group.meanMemoryMB(func(name string) bool { return name != "vivarium-server" })})
}

// idleSandbox is the figure of an idle sandbox's memory.
const idleSandbox = "idle sandbox MB"

// awaitBlanks waits until all blanks of the side's pool are ready, if it has one.
func (c *contender) awaitBlanks(ctx context.Context) error {
	if c.pool == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fullTime, fmt.Errorf("the pool is not full after %v", fullTime))
	defer cancel()
	return c.pool.AwaitFull(ctx)
}

// settle waits until what the side's last turn has left is gone.
func (c *contender) settle(ctx context.Context) error {
	if c.bare != nil {
		return c.bare.settle(ctx)
	}
	return c.awaitBlanks(ctx)
}

// fullTime bounds the wait for a pool.
const fullTime = 3 * time.Minute

// subject is what a turn calls.
type subject struct {
	way   way
	meter *meter
	close func() error
}

// freshWindows is for how many windows of settle a new server must be quiet. An engine takes
// time to start a container, which cannot be seen.
const freshWindows = 3

// opener opens a way of a side for a turn.
type opener func(ctx context.Context, c *contender) (subject, error)

func nothing() error { return nil }

// ofWarm opens the plain way.
func ofWarm(_ context.Context, c *contender) (subject, error) {
	w, m := c.warm()
	return subject{w, m, nothing}, nil
}

// ofServer opens a way of the warm server that needs nothing else.
func ofServer(of func(o *ours) way) opener {
	return func(_ context.Context, c *contender) (subject, error) {
		return subject{of(c.server.ours), c.server.meter, nothing}, nil
	}
}

// ofSession opens a way in a session.
func ofSession(of func(o *ours, path string) way) opener {
	return func(ctx context.Context, c *contender) (subject, error) {
		o := c.server.ours
		path, err := o.createSession(ctx)
		return subject{of(o, path), c.server.meter, func() error { return o.drop(ctx, path) }}, err
	}
}

// ofFile opens a way that needs a stored file.
func ofFile(megabytes int, of func(o *ours, path string, stored []byte) way) opener {
	return func(ctx context.Context, c *contender) (subject, error) {
		o, stored := c.server.ours, content(megabytes)
		path, err := o.put(ctx, form(stored))
		return subject{of(o, path, stored), c.server.meter, func() error { return o.drop(ctx, path) }}, err
	}
}

// ofHTTP opens a connection of MCP over HTTP.
func ofHTTP(of func(h *mcpHTTP) way) opener {
	return func(ctx context.Context, c *contender) (subject, error) {
		h := &mcpHTTP{ours: c.server.ours}
		err := h.greet(ctx)
		return subject{of(h), c.server.meter, nothing}, err
	}
}

// ofPipe opens a server of MCP over stdio, and waits until its pool is at its target.
func ofPipe(first program, of func(p *mcpPipe) way) opener {
	return func(ctx context.Context, c *contender) (subject, error) {
		pipe, err := c.launcher.openPipe(ctx, first)
		if err != nil {
			return subject{}, err
		}
		m := &meter{pid: pipe.cmd.Process.Pid, group: pipe.group, sandboxes: c.launcher.sandboxes}
		if err := settle(ctx, freshWindows, m); err != nil {
			return subject{}, errors.Join(err, pipe.close())
		}
		return subject{of(pipe), m, pipe.close}, nil
	}
}

// ofCold opens a way that starts a process for each run.
func ofCold(of func(c *contender, l *launcher) way) opener {
	return func(_ context.Context, c *contender) (subject, error) {
		l := *c.launcher
		var err error
		if l.groups.version != 0 {
			l.groups, err = l.groups.makeParent(newName())
		}
		return subject{of(c, &l), &meter{group: l.groups, sandboxes: l.sandboxes}, l.groups.remove}, err
	}
}

// ofFresh opens a server that has just started, and whose pool is at its target: it has
// made a run, and has had nothing to do since.
func ofFresh(ctx context.Context, c *contender) (subject, error) {
	s, err := c.launcher.serve(ctx)
	if err != nil {
		return subject{}, err
	}
	_, err = s.ours.plain().run(ctx, programs()[0])
	if err == nil {
		err = settle(ctx, freshWindows, s.meter)
	}
	if err != nil {
		return subject{}, errors.Join(err, s.stop())
	}
	return subject{s.ours.plain(), s.meter, s.stop}, nil
}
