package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
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

// containersReading is what all containers have used, and each that exists.
type containersReading struct {
	isRead bool
	at     time.Time
	all    counts
	each   map[string]counts // by the name of its group
	ours   []string          // identifiers of the containers of one server
}

// find finds the group above the containers of a server that runs on this machine.
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

func (c *containers) read(ctx context.Context, instance string) containersReading {
	r := containersReading{isRead: true, ours: c.of(ctx, instance), each: make(map[string]counts)}
	r.at, r.all = time.Now(), c.above.counts()
	for _, name := range c.above.children() {
		r.each[name] = c.above.child(name).counts()
	}
	return r
}

// used returns what the containers of the server have used between two readings.
func (c *containers) used(ctx context.Context, from, to containersReading) counts {
	if c.strangers(ctx, from.at, to.at) {
		return unknown()
	}
	return usedBetween(from, to)
}

// usedBetween returns what all have used, less the others that exist at both times. Those
// that exist at one of them or at neither are ours: no others begin or end.
func usedBetween(from, to containersReading) counts {
	used := to.all.minus(from.all)
	for name, before := range from.each {
		after, stays := to.each[name]
		isOurs := slices.ContainsFunc(from.ours, func(id string) bool { return strings.Contains(name, id) })
		if stays && !isOurs {
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
