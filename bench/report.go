package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
)

// report is what is published.
type report struct {
	Time      time.Time         `json:"time"`
	Machine   machine           `json:"machine"`
	Program   string            `json:"program"`
	Paced     []sideResult      `json:"paced"`
	Sustained []sustainedResult `json:"sustained"`
	Cold      []sideResult      `json:"cold,omitempty"`
	Ways      []sideResult      `json:"ways,omitempty"`
	MCP       *mcpResult        `json:"mcp,omitempty"`
	Files     []filesResult     `json:"files,omitempty"`
	Memory    memory            `json:"memory_mb"`
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

// sideResult is what was measured of one side.
type sideResult struct {
	Side string `json:"side"`
	summary
	// Faster is the first side's median over this one's: how many times this
	// one is faster.
	Faster float64 `json:"times_faster"`
	// Rate is this side's rate over the first one's; 0 when paced.
	Rate float64 `json:"rate_ratio,omitempty"`
	// Stages are the medians of where a server's time went, in ms.
	Stages map[string]float64 `json:"stages_ms,omitempty"`
}

// sustainedResult is clients that call back to back.
type sustainedResult struct {
	Clients int          `json:"clients"`
	Sides   []sideResult `json:"sides"`
}

// memory is the idle server's and a warm sandbox's, in MB; 0 is unknown.
type memory struct {
	Before  float64 `json:"server_before"` // before the first request, the pool warm
	After   float64 `json:"server_after"`
	Runs    int     `json:"runs"` // between the two
	Sandbox float64 `json:"sandbox"`
}

func newReport(engine *bare, settings config.Config, p program) *report {
	return &report{
		Program: p.name,
		Time:    time.Now().UTC().Truncate(time.Second),
		Machine: machine{
			System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(),
			Engine: engine.version, Image: settings.Image,
			PoolSize: settings.PoolSize, PoolStarts: settings.PoolStarts, MaxSandboxes: settings.MaxSandboxes,
		},
	}
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
	_, _ = fmt.Fprintf(&b, "\n%s. Times in ms; \"answer\" leaves out the removal of a bare container.\n", r.Program)
	if len(r.Paced) > 0 {
		b.WriteString("\nPaced: one client that pauses before each call.\n\n")
		showSides(&b, r.Paced)
	}
	for _, s := range r.Sustained {
		_, _ = fmt.Fprintf(&b, "\nSustained: %d clients that call back to back.\n\n", s.Clients)
		showSides(&b, s.Sides)
	}
	if len(r.Cold) > 0 {
		b.WriteString("\nCold: a command that runs the program and ends.\n\n")
		showSides(&b, r.Cold)
	}
	if len(r.Ways) > 0 {
		b.WriteString("\nWays: one client that pauses before each call.\n\n")
		showSides(&b, r.Ways)
	}
	if r.MCP != nil {
		b.WriteString("\nMCP: one client that pauses before each call.\n\n")
		showSides(&b, r.MCP.Paced)
		_, _ = fmt.Fprintf(&b, "\nMCP: %d calls at once, over one connection where it is stdio.\n\n", r.MCP.Sustained.Clients)
		showSides(&b, r.MCP.Sustained.Sides)
		b.WriteString("\nMCP: how long a run goes on that is called off.\n\n")
		showSides(&b, r.MCP.Cancels)
	}
	if len(r.Files) > 0 {
		b.WriteString("\nFiles: MB/s; growth of the server's memory in MB.\n\n")
		showFiles(&b, r.Files)
	}
	if r.Memory.After > 0 {
		_, _ = fmt.Fprintf(&b, "\nIdle server: %.1f MB, and %.1f MB after %d runs. Idle sandbox: %.1f MB.\n",
			r.Memory.Before, r.Memory.After, r.Memory.Runs, r.Memory.Sandbox)
	}
	return b.String()
}

// showSides shows the sides and the stages of those that tell of them.
func showSides(w io.Writer, sides []sideResult) {
	rows := newRows(w)
	rows.add("side", "runs", "failed", "runs/s", "rate ratio", "answer p50", "p50", "p99", "times faster")
	for _, s := range sides {
		rows.add(s.Side, s.Runs, s.Failures, tenth(s.PerSecond), tenth(s.Rate), hundredth(s.AnswerP50), hundredth(s.P50), tenth(s.P99), tenth(s.Faster))
	}
	rows.end()
	if !slices.ContainsFunc(sides, func(s sideResult) bool { return s.Stages != nil }) {
		return
	}
	rows = newRows(w)
	header := []any{"median of"}
	for _, name := range stageNames() {
		header = append(header, name)
	}
	rows.add(header...)
	for _, s := range sides {
		if s.Stages == nil {
			continue
		}
		line := []any{s.Side}
		for _, name := range stageNames() {
			line = append(line, hundredth(s.Stages[name]))
		}
		rows.add(line...)
	}
	rows.end()
}

func showFiles(w io.Writer, files []filesResult) {
	rows := newRows(w)
	rows.add("side", "upload", "download", "growth")
	for _, f := range files {
		rows.add(f.Side, tenth(f.Upload), tenth(f.Download), tenth(f.Growth))
	}
	rows.end()
}

func hundredth(x float64) string { return fmt.Sprintf("%.2f", x) }

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
