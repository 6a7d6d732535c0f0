package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
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

// usage is what the runs of a turn have used.
type usage struct{ server, sandboxes, together counts }

// meter reads what one server and its sandboxes use, or the commands of one turn.
//
// Without an engine, all are in the group. With one, the sandboxes are the containers, and
// the engine's own work is not counted.
type meter struct {
	pid        int  // of the server; 0 where each run reports what its own has used
	inEngine   bool // the server is the engine, which cannot be measured
	group      group
	containers *containers // nil without an engine
	instance   string      // on the server's containers
}

// reading is what a meter reads at one time.
type reading struct {
	at            time.Time
	server, group counts
	containers    containersReading
}

func (m *meter) read(ctx context.Context) reading {
	r := reading{at: time.Now(), server: processCounts(m.pid), group: m.group.counts()}
	if m.containers != nil {
		r.containers = m.containers.read(ctx, m.instance)
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
	u := usage{server: to.server.minus(from.server)}
	switch {
	case m.inEngine:
		u.server = unknown()
	case m.pid == 0:
		u.server = counts{}
		for _, run := range t.timings {
			u.server = u.server.plus(run.server)
		}
	}
	if m.containers == nil {
		u.together = to.group.minus(from.group)
		u.sandboxes = u.together.minus(u.server)
		return t, u, nil
	}
	u.sandboxes = m.containers.used(ctx, from.containers, to.containers)
	u.together = u.server.plus(u.sandboxes)
	return t, u, nil
}

// busy returns how many cores were in use between two readings, by other containers of the
// engine too. NaN is unknown.
func busy(from, to reading) float64 {
	used := to.group.cpu - from.group.cpu
	if from.containers.isRead {
		used = to.server.cpu - from.server.cpu + to.containers.all.cpu - from.containers.all.cpu
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
