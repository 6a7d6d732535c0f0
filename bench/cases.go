package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// benchCase is something that is measured of each side.
type benchCase struct {
	name string
	bare bool // bare sides have it too
	pods bool // only sides whose sandboxes are pods have it
	turn turn
}

const (
	pipeClients = 8   // of MCP, at once
	stagedMB    = 10  // of the file that runs are given, or make
	storedMB    = 100 // of the file that is uploaded and downloaded
)

// all returns the cases whose names match. The first program is in all of them, the others
// are in cases of their own.
func (o options) all(programs []program) []benchCase {
	var all []benchCase
	cases := slices.Concat(o.runs(programs), o.ways(programs[0]), o.starts(programs[0]))
	if o.kubeconfig != "" {
		cases = slices.Concat(cases, o.claims())
	}
	for _, c := range cases {
		if o.cases.MatchString(c.name) {
			all = append(all, c)
		}
	}
	return all
}

func (o options) pacing() pacing { return pacing{o.each, o.pause, o.stages} }

// runs are plain runs.
func (o options) runs(programs []program) []benchCase {
	how, first := o.pacing(), programs[0]
	all := []benchCase{{name: "memory", turn: func(ctx context.Context, c *contender) ([]figure, error) { return c.idle(ctx), nil }}}
	for _, p := range programs {
		all = append(all, benchCase{name: p.name + ", paced", bare: true, turn: how.paced(p, ofWarm)})
	}
	for _, n := range o.clients {
		name := fmt.Sprintf("%s, clients: %d", first.name, n)
		all = append(all, benchCase{name: name, bare: true, turn: how.sustained(first, n, ofWarm)})
	}
	for _, n := range o.bursts {
		name := fmt.Sprintf("%s, burst from idle, clients: %d", first.name, n)
		all = append(all, benchCase{name: name, turn: how.burst(first, n)})
	}
	return all
}

// ways are the other ways to run a program, and to keep a file.
func (o options) ways(p program) []benchCase {
	how := o.pacing()
	paced := func(name string, open opener) benchCase { return benchCase{name: name, turn: how.paced(p, open)} }
	overHTTP := ofHTTP(func(h *mcpHTTP) way { return h })
	overPipe := ofPipe(p, func(p *mcpPipe) way { return p })
	return []benchCase{
		paced("streamed, first output", ofServer(func(o *ours) way { return &streamed{o, "/v1/execute/stream"} })),
		paced("session, create", func(_ context.Context, c *contender) (subject, error) {
			return subject{&creation{c.server.ours, c.awaitBlanks}, c.server.meter, nothing}, nil
		}),
		paced("session, execute", ofSession(func(o *ours, path string) way { return &request{ours: o, path: path + "/execute"} })),
		paced("session, first output", ofSession(func(o *ours, path string) way { return &streamed{o, path + "/execute/stream"} })),
		paced("session, bash", ofSession(func(o *ours, path string) way {
			return &request{ours: o, path: path + "/bash", more: map[string]any{"cmd": "echo 42"}}
		})),
		paced("MCP over HTTP, paced", overHTTP),
		paced("MCP over stdio, paced", overPipe),
		{name: fmt.Sprintf("MCP over HTTP, calls at once: %d", pipeClients), turn: how.sustained(p, pipeClients, overHTTP)},
		{name: fmt.Sprintf("MCP over stdio, calls at once: %d", pipeClients), turn: how.sustained(p, pipeClients, overPipe)},
		paced("MCP over HTTP, cancelled", ofHTTP(func(h *mcpHTTP) way { return &cancelled{h.begin} })),
		paced("MCP over stdio, cancelled", ofPipe(p, func(p *mcpPipe) way { return &cancelled{p.begin} })),
		paced(fmt.Sprintf("file of %d MB, staged", stagedMB), ofFile(stagedMB, func(o *ours, path string, _ []byte) way {
			file := map[string]string{"path": "a", "file_id": strings.TrimPrefix(path, "/v1/files/")}
			return &request{ours: o, path: "/v1/execute", more: map[string]any{"files": []map[string]string{file}}}
		})),
		paced(fmt.Sprintf("file of %d MB, made", stagedMB), ofServer(func(o *ours) way {
			return &request{ours: o, path: "/v1/execute", code: fmt.Sprintf("open('a', 'wb').write(bytes(%d << 20)); ", stagedMB)}
		})),
		paced(fmt.Sprintf("file of %d MB, upload", storedMB), ofServer(func(o *ours) way { return &upload{o, form(content(storedMB))} })),
		paced(fmt.Sprintf("file of %d MB, download", storedMB), ofFile(storedMB, func(o *ours, path string, stored []byte) way { return &download{o, path, stored} })),
	}
}

// starts are programs that a process of their own runs, from its start to the answer.
func (o options) starts(p program) []benchCase {
	how := o.pacing()
	return []benchCase{
		{name: "exec, cold", bare: o.kubeconfig == "", turn: how.paced(p, ofCold(func(c *contender, l *launcher) way {
			if engine, ok := c.bare.(*bare); ok {
				return &command{l, engine.runLine()}
			}
			return &command{l, []string{l.binary, "exec"}}
		}))},
		{name: "stdio, from start to first answer", turn: how.paced(p, ofCold(func(_ *contender, l *launcher) way { return &firstOverPipe{l} }))},
		{name: "serve, from start to first answer", turn: how.paced(p, ofCold(func(_ *contender, l *launcher) way { return &firstOverHTTP{l} }))},
	}
}
