package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	dockerclient "github.com/docker/docker/client"
)

// labelInstance is on each container of a server, with the server's instance.
const labelInstance = "vivarium.instance"

// containers reads what the containers of an engine on this machine use.
//
// A container's group vanishes with it, and the group above keeps its counts. So what ours
// use is what the group above counts, less what others below it have used meanwhile. That
// is unknown if containers of others begin or end meanwhile.
type containers struct {
	client *dockerclient.Client
	above  group // the group above those of containers; none if it is unknown
}

// find implements [sandboxMeter]. The server must run on this machine.
func (c *containers) find(ctx context.Context, instance string) {
	for _, id := range c.of(ctx, instance) {
		made, err := c.client.ContainerInspect(ctx, id)
		if err != nil || made.State == nil || made.State.Pid == 0 {
			continue
		}
		g, _, err := groupOf(strconv.Itoa(made.State.Pid))
		if above, ok := g.above(id); err == nil && ok {
			c.above = above
			return
		}
	}
}

// of returns the identifiers of a server's containers; none if instance is "".
func (c *containers) of(ctx context.Context, instance string) []string {
	if instance == "" {
		return nil
	}
	list, _ := c.client.ContainerList(ctx, container.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", labelInstance+"="+instance)),
	}) // none is a result too: it is compared with what the groups count
	var ids []string
	for _, made := range list {
		ids = append(ids, made.ID)
	}
	return ids
}

// read implements [sandboxMeter].
func (c *containers) read(ctx context.Context, instance string) sandboxesReading {
	return c.above.readAll(c.of(ctx, instance))
}

// readAll reads what the groups below have used, those of sandboxes of a server among them.
func (g group) readAll(ours []string) sandboxesReading {
	r := sandboxesReading{isRead: true, ours: ours, each: make(map[string]counts)}
	r.at, r.all = time.Now(), g.counts()
	for _, name := range g.children() {
		r.each[name] = g.child(name).counts()
	}
	return r
}

// memory implements [sandboxMeter].
func (c *containers) memory(ctx context.Context, instance string) []figure {
	ours := sandboxesReading{ours: c.of(ctx, instance)}
	return []figure{{idleSandbox, c.above.meanMemoryMB(ours.isOurs)}}
}

// used implements [sandboxMeter].
func (c *containers) used(ctx context.Context, from, to sandboxesReading) counts {
	if c.strangers(ctx, from.at, to.at) {
		return unknown()
	}
	return usedBetween(from, to)
}

// usedBetween returns what all have used, less the others that exist at both times. Those
// that exist at one of them or at neither are ours: no others begin or end.
func usedBetween(from, to sandboxesReading) counts {
	used := to.all.minus(from.all)
	for name, before := range from.each {
		after, stays := to.each[name]
		if stays && !from.isOurs(name) {
			used = used.minus(after.minus(before))
		}
	}
	return used
}

// strangers reports whether containers that no server and no benchmark has made began or
// ended between two times, or whether that is unknown.
func (c *containers) strangers(ctx context.Context, from, to time.Time) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, failed := c.client.Events(ctx, events.ListOptions{
		Since: unixTime(from), Until: unixTime(to),
		Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("event", "start"), filters.Arg("event", "die")),
	})
	for {
		select {
		case message := <-messages:
			labels := message.Actor.Attributes
			if labels[labelInstance] == "" && labels[labelBench] == "" {
				return true
			}
		case err := <-failed:
			return !errors.Is(err, io.EOF)
		}
	}
}

// unixTime returns a time as the engine takes it: seconds and nanoseconds.
func unixTime(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
