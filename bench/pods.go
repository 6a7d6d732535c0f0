package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/config"
)

// pool returns the pool of a place: the one that the environment names, or a new one. It must be
// removed, also where it is beside an error.
func (w *workbench) pool(ctx context.Context, p place) (*cluster.Pool, error) {
	environment := append(slices.Clip(p.environment), "EXECUTOR_BACKEND=kubernetes", "PYTHON_EXECUTOR_DOCKER_IMAGE=")
	settings, err := config.Load(ctx, w.lookup.with(environment))
	if err != nil {
		return nil, err
	}
	if name, _ := w.lookup("KUBERNETES_POOL"); name != "" {
		return w.cluster.Use(ctx, settings)
	}
	if settings, err = settings.ForMachine(config.Machine{}); err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintln(w.progress, "installing the chart")
	return w.cluster.Install(ctx, cluster.Values{ServerImage: w.opts.serverImage, Image: p.image, Blanks: w.opts.blanks, Settings: settings})
}

// clusterContenders returns the sides, started, of which the last has pods for sandboxes. Sides
// beside an error must be stopped too.
func (w *workbench) clusterContenders(ctx context.Context, p place, pool *cluster.Pool) (sides []*contender, err error) {
	environment := append(slices.Clip(p.environment), pool.Environment()...)
	side := func(name, binary string) *contender {
		return &contender{name: name, launcher: w.launcher(binary, environment, &podGroups{pool: pool}), pool: pool}
	}
	ours, base := side("ours", w.opts.binary), w.opts.base()
	switch w.opts.against {
	case "":
		settings, err := config.Load(ctx, w.lookup.with(environment))
		if err != nil {
			return nil, err
		}
		bare, err := newBarePods(ctx, pool, settings)
		if err != nil {
			return nil, err
		}
		sides = append(sides, &contender{name: base, launcher: w.launcher(w.opts.binary, environment, nil), bare: bare})
	case againstDocker:
		engine := append(slices.Clip(p.environment), ofDocker(p.image, w.engine.DaemonHost())...)
		sides = append(sides, &contender{name: base, launcher: w.launcher(w.opts.binary, engine, w.containers())})
	default:
		sides = append(sides, side(base, w.opts.against))
	}
	sides = append(sides, ours)
	return sides, startAll(ctx, sides)
}

// podGroups reads what the pods of a pool use whose node is this machine. It implements
// [sandboxMeter].
type podGroups struct {
	pool  *cluster.Pool
	above group // the group above those of pods; none if it is unknown
}

// find implements [sandboxMeter].
func (p *podGroups) find(ctx context.Context, instance string) {
	ours := sandboxesReading{ours: identifiers(p.pods(ctx), held(instance))}
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !ours.isOurs(string(text)) {
			continue
		}
		for g, _, err := groupOf(filepath.Base(filepath.Dir(file))); err == nil && g.cpu != "/"; g = g.parent() {
			if ours.isOurs(filepath.Base(g.cpu)) {
				p.above = g.parent()
				return
			}
		}
	}
}

// pods returns the pods of the pool.
func (p *podGroups) pods(ctx context.Context) []corev1.Pod {
	list, err := p.pool.Pods(ctx, p.pool.Namespace, cluster.LabelPool+"="+p.pool.Label)
	if err != nil {
		return nil // what is compared with it is unknown then
	}
	return list.Items
}

// identifiers returns the identifiers of the pods that a condition selects, in the forms that
// groups of either driver have.
func identifiers(pods []corev1.Pod, selects func(*corev1.Pod) bool) []string {
	var ids []string
	for i := range pods {
		if selects(&pods[i]) {
			uid := string(pods[i].UID)
			ids = append(ids, uid, strings.ReplaceAll(uid, "-", "_"))
		}
	}
	return ids
}

// held selects the pods of a server.
func held(instance string) func(*corev1.Pod) bool {
	return func(pod *corev1.Pod) bool { return pod.Labels[cluster.LabelHolder] == instance }
}

// read implements [sandboxMeter]. It reads the pods of the pool alone.
func (p *podGroups) read(ctx context.Context, instance string) sandboxesReading {
	pods := p.pods(ctx)
	r := p.above.readAll(identifiers(pods, func(*corev1.Pod) bool { return true }))
	maps.DeleteFunc(r.each, func(name string, _ counts) bool { return !r.isOurs(name) })
	r.ours = identifiers(pods, held(instance))
	return r
}

// used implements [sandboxMeter]. The result is unknown if pods of the pool have begun or ended
// meanwhile: theirs may have been of the server, and the groups above have pods of others too.
func (p *podGroups) used(_ context.Context, from, to sandboxesReading) counts {
	sameGroup := func(counts, counts) bool { return true }
	if len(from.ours) == 0 || !maps.EqualFunc(from.each, to.each, sameGroup) {
		return unknown()
	}
	var used counts
	for name, before := range from.each {
		if to.isOurs(name) {
			used = used.plus(to.each[name].minus(before))
		}
	}
	return used
}

// memory implements [sandboxMeter].
func (p *podGroups) memory(ctx context.Context, instance string) []figure {
	pods := p.pods(ctx)
	mean := func(selects func(*corev1.Pod) bool) float64 {
		return p.above.meanMemoryMB(sandboxesReading{ours: identifiers(pods, selects)}.isOurs)
	}
	blank := func(pod *corev1.Pod) bool { return pod.Labels[cluster.LabelState] == cluster.StateFree }
	return []figure{{idleSandbox, mean(held(instance))}, {"blank MB", mean(blank)}}
}
