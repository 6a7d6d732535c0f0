package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	dockerclient "github.com/docker/docker/client"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/config"
)

// place is where sandboxes are made, and from what: all is measured once in each.
type place struct {
	name        string
	local       bool
	image       string // of pods
	environment []string
}

// places returns the places that are measured, in order. host is the engine's.
func (o options) places(host string) []place {
	common := []string{"HOST=127.0.0.1", "PORT=0", "LOG_FORMAT=json", "LOG_LEVEL=info"}
	var all []place
	if o.local {
		for _, root := range o.roots {
			p := place{name: "local backend, this machine's Python", local: true}
			p.environment = append(slices.Clip(common), "EXECUTOR_BACKEND=local", "PYTHON_EXECUTOR_DOCKER_IMAGE=")
			if root != "" {
				p.name = "local backend, " + root
				p.environment = append(p.environment, "LOCAL_ROOTFS="+root)
			}
			all = append(all, p)
		}
		return all
	}
	for _, image := range o.images {
		if o.kubeconfig != "" {
			all = append(all, place{name: "Kubernetes backend, " + image, image: image, environment: common})
			continue
		}
		all = append(all, place{name: "Docker backend, " + image, environment: append(slices.Clip(common), ofDocker(image, host)...)})
	}
	return all
}

// ofDocker has a server make containers of an image.
func ofDocker(image, host string) []string {
	return []string{"EXECUTOR_BACKEND=docker", "PYTHON_EXECUTOR_DOCKER_IMAGE=" + image, "DOCKER_HOST=" + host}
}

// workbench is what the measurements of all places use.
type workbench struct {
	opts     options
	lookup   lookup
	engine   *dockerclient.Client // nil without an engine
	cluster  *cluster.Cluster     // nil without a cluster
	groups   group                // below which servers and commands have theirs
	progress io.Writer
}

// measure measures both sides in one place. Results beside an error are what was measured
// before it.
func (w *workbench) measure(ctx context.Context, p place) (results placeResult, err error) {
	m := &measurement{opts: w.opts, progress: w.progress, records: &records{}}
	var sides []*contender
	var pool *cluster.Pool
	defer func() {
		for _, c := range sides {
			err = errors.Join(err, c.stop(ctx))
		}
		if pool != nil {
			err = errors.Join(err, pool.Remove(ctx))
		}
	}()
	if w.cluster == nil {
		sides, err = w.contenders(ctx, p)
	} else if pool, err = w.pool(ctx, p); err == nil {
		sides, err = w.clusterContenders(ctx, p, pool)
	}
	if err != nil {
		return placeResult{Place: p.name}, err
	}
	m.sides = sides
	err = m.all(ctx)
	return placeResult{p.name, m.records.rows()}, err
}

// contenders returns the sides, started. The last is the binary under test, and the other,
// if there is one, is what it is compared with. Sides beside an error must be stopped too.
func (w *workbench) contenders(ctx context.Context, p place) (sides []*contender, err error) {
	ours := &contender{name: "ours", launcher: w.launcher(w.opts.binary, p.environment, w.containers())}
	switch {
	case w.opts.against != "":
		sides = append(sides, &contender{name: w.opts.base(), launcher: w.launcher(w.opts.against, p.environment, w.containers())})
	case !p.local:
		c := &contender{name: w.opts.base(), launcher: ours.launcher}
		if c.bare, err = w.bare(ctx, p); err != nil {
			return nil, err
		}
		sides = append(sides, c)
	}
	sides = append(sides, ours)
	return sides, startAll(ctx, sides)
}

// launcher returns what starts processes of a binary. Sandboxes that are in the groups of these
// have no meter: sandboxes is nil.
func (w *workbench) launcher(binary string, environment []string, sandboxes sandboxMeter) *launcher {
	return &launcher{binary: binary, environment: append(os.Environ(), environment...), groups: w.groups, sandboxes: sandboxes, progress: w.progress}
}

// containers returns the meter of an engine's containers, nil without an engine.
func (w *workbench) containers() sandboxMeter {
	if w.engine == nil {
		return nil
	}
	return &containers{client: w.engine}
}

// startAll starts the sides that have a server.
func startAll(ctx context.Context, sides []*contender) error {
	for _, c := range sides {
		if c.bare != nil {
			continue
		}
		if err := c.start(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// bare returns the bare engine, with the settings of the server.
func (w *workbench) bare(ctx context.Context, p place) (*bare, error) {
	settings, err := config.Load(ctx, w.lookup.with(p.environment))
	if err != nil {
		return nil, err
	}
	return newBare(ctx, w.engine, settings)
}

// measurement measures the sides in one place, in turns.
type measurement struct {
	opts     options
	sides    []*contender
	records  *records
	progress io.Writer
}

// all measures all cases in rounds. In every other round the sides take turns in the
// opposite order.
func (m *measurement) all(ctx context.Context) error {
	programs, err := m.runnable(ctx)
	if err != nil {
		return err
	}
	cases := m.opts.all(programs)
	for round := range m.opts.rounds {
		for _, c := range cases {
			_, _ = fmt.Fprintf(m.progress, "round %d of %d: %s\n", round+1, m.opts.rounds, c.name)
			for i := range m.sides {
				side := i
				if round%2 == 1 {
					side = len(m.sides) - 1 - i
				}
				if err := m.take(ctx, c, side); err != nil {
					return fmt.Errorf("%s: %s: %w", c.name, m.sides[side].name, err)
				}
			}
		}
	}
	return nil
}

// take has one side take its turn in a case.
func (m *measurement) take(ctx context.Context, c benchCase, side int) error {
	if m.sides[side].bare != nil && !c.bare || m.sides[side].pool == nil && c.pods {
		return nil
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	figures, err := c.turn(ctx, m.sides[side])
	if err != nil {
		return err
	}
	isOurs := side == len(m.sides)-1
	m.records.add(c.name, isOurs, figures)
	return nil
}

func (m *measurement) settle(ctx context.Context) error {
	var meters []*meter
	for _, c := range m.sides {
		if err := c.settle(ctx); err != nil {
			return err
		}
		if c.server != nil {
			meters = append(meters, c.server.meter)
		}
	}
	return settle(ctx, 1, meters...)
}

// runnable returns the programs whose modules are there.
func (m *measurement) runnable(ctx context.Context) ([]program, error) {
	var programs []program
	ours := m.sides[len(m.sides)-1].server.ours.plain()
	for _, p := range m.opts.programs {
		_, err := ours.run(ctx, p)
		switch {
		case err == nil:
			programs = append(programs, p)
		case errors.Is(err, errMissing):
			_, _ = fmt.Fprintf(m.progress, "without %s: a module is not there\n", p.name)
		default:
			return nil, err
		}
	}
	if len(programs) == 0 {
		return nil, errors.New("no program of -program has its modules here")
	}
	return programs, nil
}
