package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
)

// report is what is published.
type report struct {
	Time      time.Time         `json:"time"`
	Machine   machine           `json:"machine"`
	Paced     []pacedResult     `json:"paced"`
	Sustained []sustainedResult `json:"sustained"`
	IdleMB    idleMB            `json:"idle_mb"`
}

// machine is what the numbers depend on.
type machine struct {
	System       string `json:"system"`
	Cores        int    `json:"cores"`
	Engine       string `json:"engine"`
	Image        string `json:"image"`
	PoolSize     int    `json:"pool_size"`
	PoolStarts   int    `json:"pool_starts"`
	MaxSandboxes int    `json:"max_sandboxes"`
}

// pacedResult is one client that calls when the pool has refilled.
type pacedResult struct {
	Program string  `json:"program"`
	Bare    summary `json:"bare"`
	Ours    summary `json:"ours"`
	// Faster is the bare median over ours: how many times ours is faster.
	Faster float64 `json:"bare_p50_over_ours"`
}

// sustainedResult is clients that call back to back.
type sustainedResult struct {
	Clients int     `json:"clients"`
	Bare    summary `json:"bare"`
	Ours    summary `json:"ours"`
	// Rate is our rate over the bare one.
	Rate float64 `json:"ours_rate_over_bare"`
}

// idleMB is the idle server's resident memory, in MB; 0 is unknown.
type idleMB struct {
	Before float64 `json:"before"` // before the first request, the pool warm
	After  float64 `json:"after"`
}

func newReport(engine *bare, settings config.Config) *report {
	return &report{
		Time: time.Now().UTC().Truncate(time.Second),
		Machine: machine{
			System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(),
			Engine: engine.version, Image: settings.Image,
			PoolSize: settings.PoolSize, PoolStarts: settings.PoolStarts, MaxSandboxes: settings.MaxSandboxes,
		},
	}
}

func newPacedResult(name string, bare, ours summary) pacedResult {
	return pacedResult{Program: name, Bare: bare, Ours: ours, Faster: ratio(bare.P50, ours.P50)}
}

func newSustainedResult(clients int, bare, ours summary) sustainedResult {
	return sustainedResult{Clients: clients, Bare: bare, Ours: ours, Rate: ratio(ours.PerSecond, bare.PerSecond)}
}

// publish writes the table to stdout and the JSON to its file, or to stdout in
// the table's place.
func publish(r *report, jsonPath string, stdout io.Writer) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	data = append(data, '\n')
	if jsonPath == "-" {
		_, err := stdout.Write(data)
		return err
	}
	if _, err := io.WriteString(stdout, r.table()); err != nil {
		return err
	}
	if jsonPath == "" {
		return nil
	}
	if err := os.WriteFile(jsonPath, data, 0o600); err != nil { //nolint:gosec // G703: the file that the caller names
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// table shows the report to people.
func (r *report) table() string {
	var b strings.Builder
	m := r.Machine
	_, _ = fmt.Fprintf(&b, "\n%s, %d cores, Docker Engine %s, %s\nPOOL_SIZE=%d POOL_STARTS=%d MAX_SANDBOXES=%d\n",
		m.System, m.Cores, m.Engine, m.Image, m.PoolSize, m.PoolStarts, m.MaxSandboxes)
	if len(r.Paced) > 0 {
		b.WriteString("\nPaced: one client, the pool refilled before each call. Times in ms;\n" +
			"\"answer\" leaves out the removal of the bare container.\n\n")
		r.pacedRows(&b)
	}
	if len(r.Sustained) > 0 {
		b.WriteString("\nSustained: clients call back to back, the pool's head start not counted.\n\n")
		r.sustainedRows(&b)
	}
	if r.IdleMB.After > 0 {
		_, _ = fmt.Fprintf(&b, "\nIdle server: %.1f MB before the runs, %.1f MB after them.\n", r.IdleMB.Before, r.IdleMB.After)
	}
	return b.String()
}

func (r *report) pacedRows(w io.Writer) {
	rows := newRows(w)
	rows.add("program", "side", "runs", "answer p50", "p50", "p99", "bare/ours p50")
	for _, result := range r.Paced {
		for _, line := range []struct {
			side, ratio string
			summary
		}{{"bare", "", result.Bare}, {"ours", fmt.Sprintf("%.1fx", result.Faster), result.Ours}} {
			rows.add(result.Program, line.side, line.Runs, tenth(line.AnswerP50), tenth(line.P50), tenth(line.P99), line.ratio)
		}
	}
	rows.end()
}

func (r *report) sustainedRows(w io.Writer) {
	rows := newRows(w)
	rows.add("clients", "side", "runs", "failed", "runs/s", "p50", "p99", "ours/bare rate")
	for _, result := range r.Sustained {
		for _, line := range []struct {
			side, ratio string
			summary
		}{{"bare", "", result.Bare}, {"ours", fmt.Sprintf("%.2f", result.Rate), result.Ours}} {
			rows.add(result.Clients, line.side, line.Runs, line.Failures, tenth(line.PerSecond), tenth(line.P50), tenth(line.P99), line.ratio)
		}
	}
	rows.end()
}

func tenth(x float64) string { return fmt.Sprintf("%.1f", x) }

// rows aligns cells in columns.
type rows struct{ w *tabwriter.Writer }

func newRows(w io.Writer) rows {
	return rows{tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)}
}

func (r rows) add(cells ...any) {
	for _, cell := range cells {
		_, _ = fmt.Fprintf(r.w, "%v\t", cell)
	}
	_, _ = fmt.Fprintln(r.w)
}

func (r rows) end() { _ = r.w.Flush() }
