package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vivarium-sandbox/vivarium/config"
)

// report is what is published.
type report struct {
	Time    time.Time     `json:"time"`
	Machine machine       `json:"machine"`
	Base    string        `json:"base,omitempty"` // what ours is compared with
	Rounds  int           `json:"rounds"`
	Places  []placeResult `json:"places"`
}

// machine is what the numbers depend on.
type machine struct {
	System   string   `json:"system"`
	Cores    int      `json:"cores"`
	Engine   string   `json:"engine,omitempty"`
	Cluster  string   `json:"cluster,omitempty"`
	Settings []string `json:"settings,omitempty"` // those that are set
}

// placeResult is what was measured in one place.
type placeResult struct {
	Place string `json:"place"`
	Rows  []row  `json:"rows"`
}

// row is one figure of a case: the medians of the rounds of both sides, and the median of
// the rounds' ratios, ours over the base's, with an interval that contains the true median.
type row struct {
	Case   string `json:"case"`
	Figure string `json:"figure"`
	Base   number `json:"base"`
	Ours   number `json:"ours"`
	Ratio  number `json:"ratio"`
	Low    number `json:"ratio_low"`
	High   number `json:"ratio_high"`
	Rounds int    `json:"rounds"` // that have a ratio

	alone bool // the base does not have the case
}

// interval returns the interval for people; of one round there is none.
func (r row) interval() string {
	if math.IsNaN(float64(r.Low)) {
		return ""
	}
	return r.Low.String() + " - " + r.High.String()
}

// number is a float whose NaN is unknown.
type number float64

// MarshalJSON implements [json.Marshaler].
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// String has three digits, or all before the decimal point.
func (n number) String() string {
	x := math.Abs(float64(n))
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return "unknown"
	case x >= 99.95:
		return fmt.Sprintf("%.0f", float64(n))
	case x >= 9.995:
		return fmt.Sprintf("%.1f", float64(n))
	default:
		return fmt.Sprintf("%.2f", float64(n))
	}
}

// records has what the turns of both sides measured.
type records struct{ list []*record }

// record has the values of one figure, one a round.
type record struct {
	caseName, figure string
	base, ours       []float64
}

func (r *records) add(caseName string, isOurs bool, figures []figure) {
	for _, f := range figures {
		to := r.find(caseName, f.name)
		if isOurs {
			to.ours = append(to.ours, f.value)
		} else {
			to.base = append(to.base, f.value)
		}
	}
}

// find returns the record of a figure, which it makes if there is none. Those of a case are
// beside each other, in the order in which they came.
func (r *records) find(caseName, figure string) *record {
	for _, existing := range r.list {
		if existing.caseName == caseName && existing.figure == figure {
			return existing
		}
	}
	made := &record{caseName: caseName, figure: figure}
	r.list = append(r.list, made)
	return made
}

func (r *records) rows() []row {
	var rows []row
	for _, record := range r.list {
		c := compare(record.base, record.ours)
		rows = append(rows, row{
			record.caseName, record.figure, number(median(record.base)), number(median(record.ours)),
			number(c.ratio), number(c.low), number(c.high), c.rounds, len(record.base) == 0,
		})
	}
	return rows
}

func newReport(opts options, lookup lookup) *report {
	r := &report{
		Time:    time.Now().UTC().Truncate(time.Second),
		Machine: machine{System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU()},
		Base:    opts.base(),
		Rounds:  opts.rounds,
	}
	for _, s := range config.Settings() {
		if value, isSet := lookup(s.Name); isSet && !strings.Contains(s.Name, "KEY") {
			r.Machine.Settings = append(r.Machine.Settings, s.Name+"="+value)
		}
	}
	return r
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
	_, _ = fmt.Fprintf(&b, "\n%s, %d cores", r.Machine.System, r.Machine.Cores)
	if r.Machine.Engine != "" {
		_, _ = fmt.Fprintf(&b, ", Docker Engine %s", r.Machine.Engine)
	}
	if r.Machine.Cluster != "" {
		_, _ = fmt.Fprintf(&b, ", Kubernetes %s", r.Machine.Cluster)
	}
	_, _ = fmt.Fprintf(&b, "; rounds: %d; settings: %s\n", r.Rounds, strings.Join(append(r.Machine.Settings, "otherwise the defaults"), ", "))
	b.WriteString("Medians of the rounds. CPU time and page faults are of one run.\n")
	if r.Base != "" {
		_, _ = fmt.Fprintf(&b, "The ratio is the median of the rounds' ratios, ours / %s.", r.Base)
		if confidence := r.confidence(); confidence < 1 {
			_, _ = fmt.Fprintf(&b, " The interval has the true median with %.0f %% or more (sign test).", 100*confidence)
		}
		b.WriteString("\n")
	}
	for _, p := range r.Places {
		_, _ = fmt.Fprintf(&b, "\n%s\n\n", p.Place)
		r.show(&b, p.Rows)
	}
	return b.String()
}

// confidence returns the lowest confidence of the intervals, and 1 if there are none.
func (r *report) confidence() float64 {
	lowest := 1.0
	for _, p := range r.Places {
		for _, row := range p.Rows {
			if row.interval() != "" {
				_, confidence := medianInterval(row.Rounds)
				lowest = min(lowest, confidence)
			}
		}
	}
	return lowest
}

// show shows the rows of a place, without refusals where there were none.
func (r *report) show(w io.Writer, rows []row) {
	cells := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(words ...string) { _, _ = fmt.Fprintln(cells, strings.Join(words, "\t")) }
	if r.Base == "" {
		line("case", "figure", "ours")
	} else {
		line("case", "figure", "ours", r.Base, "ratio", "interval")
	}
	before := ""
	for _, row := range rows {
		if row.Figure == refused && row.Ours == 0 && (row.alone || row.Base == 0) {
			continue
		}
		name := row.Case
		if name == before {
			name = ""
		}
		before = row.Case
		if row.alone {
			line(name, row.Figure, row.Ours.String(), "", "", "")
			continue
		}
		line(name, row.Figure, row.Ours.String(), row.Base.String(), row.Ratio.String(), row.interval())
	}
	_ = cells.Flush()
}
