package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// counts are what processes have used: seconds of CPU time, and page faults. NaN is
// unknown, and so is whatever is computed from it.
type counts struct{ cpu, faults float64 }

func unknown() counts { return counts{math.NaN(), math.NaN()} }

func (c counts) plus(other counts) counts { return counts{c.cpu + other.cpu, c.faults + other.faults} }

func (c counts) minus(other counts) counts { return counts{c.cpu - other.cpu, c.faults - other.faults} }

// usage is what the runs of a turn have used, and for how many seconds the machine's cores were
// busy meanwhile, with whatever.
type usage struct {
	machine                     float64
	server, sandboxes, together counts
}

// meter reads what one server and its sandboxes use, or the commands of one turn.
//
// Sandboxes that the server itself makes are in its group. Others have a meter of their own, and
// the work of an engine or a kubelet is counted only with that of the whole machine.
type meter struct {
	pid       int  // of the server; 0 where each run reports what its own has used
	unmetered bool // the runs are of an engine or a cluster, whose own work has no group
	group     group
	sandboxes sandboxMeter // nil where they are in the group
	instance  string       // on the server's sandboxes
}

// sandboxMeter reads what the sandboxes of servers use that are not in the servers' groups.
type sandboxMeter interface {
	// find finds the groups. The server must have sandboxes.
	find(ctx context.Context, instance string)
	read(ctx context.Context, instance string) sandboxesReading
	// used returns what the server's sandboxes have used between two readings.
	used(ctx context.Context, from, to sandboxesReading) counts
	// memory returns what one of the server's idle sandboxes occupies, and more of that kind.
	memory(ctx context.Context, instance string) []figure
}

// sandboxesReading is what all sandboxes have used, and each that exists, of other servers too.
type sandboxesReading struct {
	isRead bool
	at     time.Time
	all    counts
	each   map[string]counts // by the name of its group
	ours   []string          // identifiers of the sandboxes of one server, which are in the names of their groups
}

// isOurs reports whether a group is that of a sandbox of the server.
func (r sandboxesReading) isOurs(name string) bool {
	return slices.ContainsFunc(r.ours, func(id string) bool { return strings.Contains(name, id) })
}

// reading is what a meter reads at one time.
type reading struct {
	at            time.Time
	machine       float64 // CPU time of all processes, in seconds
	server, group counts
	sandboxes     sandboxesReading
}

func (m *meter) read(ctx context.Context) reading {
	r := reading{at: time.Now(), machine: machineClock(), server: processCounts(m.pid), group: m.group.counts()}
	if m.sandboxes != nil {
		r.sandboxes = m.sandboxes.read(ctx, m.instance)
	}
	return r
}

// settleRun is how long the clean-up after an answer takes at most, in most cases.
const settleRun = 50 * time.Millisecond

// measure calls f, which makes runs, and returns what they have used.
func (m *meter) measure(ctx context.Context, f func() (tally, error)) (tally, usage, error) {
	from := m.read(ctx)
	t, err := f()
	if err != nil {
		return t, usage{}, err
	}
	if err := sleep(ctx, settleRun); err != nil {
		return t, usage{}, err
	}
	to := m.read(ctx)
	u := usage{machine: to.machine - from.machine, server: to.server.minus(from.server)}
	switch {
	case m.unmetered:
		u.server = unknown()
	case m.pid == 0:
		u.server = counts{}
		for _, run := range t.timings {
			u.server = u.server.plus(run.server)
		}
	}
	if m.sandboxes == nil {
		u.together = to.group.minus(from.group)
		u.sandboxes = u.together.minus(u.server)
		return t, u, nil
	}
	u.sandboxes = m.sandboxes.used(ctx, from.sandboxes, to.sandboxes)
	u.together = u.server.plus(u.sandboxes)
	return t, u, nil
}

// busy returns how many cores were in use between two readings, by sandboxes of other servers
// too. NaN is unknown.
func busy(from, to reading) float64 {
	used := to.group.cpu - from.group.cpu
	if from.sandboxes.isRead {
		used = to.server.cpu - from.server.cpu + to.sandboxes.all.cpu - from.sandboxes.all.cpu
	}
	return used / to.at.Sub(from.at).Seconds()
}

// processCounts returns what a process has used, its threads that have ended included and
// the processes that it has started left out. A process that has ended counts until it is
// waited for.
func processCounts(pid int) counts {
	used := unknown()
	if pid == 0 {
		return used
	}
	if seconds, ok := processClock(pid); ok {
		used.cpu = seconds
	}
	if stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")); err == nil {
		used.faults = parseFaults(string(stat))
	}
	return used
}

// machineClock returns for how many seconds the machine's cores have been busy since it started.
func machineClock() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return math.NaN()
	}
	return parseBusy(string(stat))
}

// parseBusy returns the time of all cores in a file /proc/stat without idle time, waits and what
// a hypervisor has taken. See proc_stat(5).
func parseBusy(stat string) float64 {
	const ticksPerSecond = 100
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	counted := []int{1, 2, 3, 6, 7} // user, nice, system, irq, softirq
	if len(fields) <= counted[len(counted)-1] || fields[0] != "cpu" {
		return math.NaN()
	}
	sum := 0.0
	for _, i := range counted {
		ticks, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return math.NaN()
		}
		sum += ticks
	}
	return sum / ticksPerSecond
}

// parseFaults returns the page faults in a file /proc/PID/stat, minor and major. See
// proc_pid_stat(5).
func parseFaults(stat string) float64 {
	const minor, major = 7, 9 // fields after the name, which is in parentheses and may have any characters
	_, rest, found := strings.Cut(stat[max(strings.LastIndex(stat, ")"), 0):], ")")
	fields := strings.Fields(rest)
	if !found || len(fields) <= major {
		return math.NaN()
	}
	few, err := strconv.ParseFloat(fields[minor], 64)
	if err != nil {
		return math.NaN()
	}
	many, err := strconv.ParseFloat(fields[major], 64)
	if err != nil {
		return math.NaN()
	}
	return few + many
}

// memoryMB reads what a process occupies.
func memoryMB(pid int) float64 {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return math.NaN()
	}
	return parseResident(string(status))
}

func parseResident(status string) float64 {
	kilobytes, ok := parseNumber(strings.ReplaceAll(status, " kB", ""), "VmRSS:")
	if !ok {
		return math.NaN()
	}
	return kilobytes / 1024
}
