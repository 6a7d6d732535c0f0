package main

import (
	"encoding/json"
	"io"
	"math"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0: "0.00", 0.876: "0.88", 12.34: "12.3", 1234.4: "1234", math.Inf(1): "unknown"} {
		if got := number(x).String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	data, err := json.Marshal([]number{1.5, number(math.NaN())})
	if err != nil || string(data) != "[1.5,null]" {
		t.Errorf("got %s, %v", data, err)
	}
}

func TestTable(t *testing.T) {
	var all records
	for _, values := range [][2]float64{{2, 1}, {4, 2}, {2, 3}} {
		all.add("print, paced", false, []figure{{"p50 ms", values[0]}, {refused, 0}, {"CPU ms", math.NaN()}})
		all.add("print, paced", true, []figure{{"p50 ms", values[1]}, {refused, 0}, {"CPU ms", 7}})
	}
	all.add("memory", true, []figure{{"idle server MB", 30}})
	r := &report{Base: "before", Rounds: 3, Places: []placeResult{{"here", all.rows()}}}
	table := r.table()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	var got []string
	for _, line := range lines[len(lines)-4:] {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"case figure ours before ratio interval", "print, paced p50 ms 2.00 2.00 0.50 0.50 - 1.50",
		"CPU ms 7.00 unknown unknown", "memory idle server MB 30.0",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if !strings.Contains(table, "with 75 %") {
		t.Errorf("got %s", table)
	}
}

func TestTheDefaultImageIsFirst(t *testing.T) {
	opts, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range opts.places("unix:///x") {
		names = append(names, p.name)
	}
	if got := strings.Join(names, "; "); got != "Docker backend, vivarium/sandbox:latest; Docker backend, vivarium/sandbox:slim" {
		t.Errorf("got %s", got)
	}
}

func TestOptions(t *testing.T) {
	opts, err := parse([]string{"-local", "-root", "/a,/b", "-program", "pandas,print", "-clients", "", "-cases", "paced$"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if places := opts.places(""); len(places) != 2 || places[1].name != "local backend, /b" {
		t.Errorf("got %v", places)
	}
	var names []string
	for _, c := range opts.all(opts.programs) {
		names = append(names, c.name)
	}
	if got := strings.Join(names, "; "); got != "pandas, paced; print, paced; MCP over HTTP, paced; MCP over stdio, paced" {
		t.Errorf("got %s", got)
	}
	for base, args := range map[string][]string{
		"bare engine": nil, "": {"-local"}, "before": {"-against", "/tmp/before"},
		"pod and execs": {"-kubernetes", "/k"}, "docker": {"-kubernetes", "/k", "-against", "docker"},
	} {
		if opts, err := parse(args, io.Discard); err != nil || opts.base() != base {
			t.Errorf("%v: base %q, %v", args, opts.base(), err)
		}
	}
	for _, bad := range [][]string{{"-kubernetes", "/k", "-local"}, {"-against", "docker"}, {"-kubernetes", "/k", "-blanks", "0"}, {"-program", "x"}, {"-clients", "0"}, {"-rounds", "0"}, {"-each", "0s"}, {"-root", "/a"}, {"-cases", "("}, {"x"}} {
		if _, err := parse(bad, io.Discard); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

func TestProgramCheck(t *testing.T) {
	p := programs()[0]
	if err := p.check(0, "42\n", ""); err != nil {
		t.Error(err)
	}
	for reason, stderr := range map[error]string{errWrong: "x", errMissing: "ModuleNotFoundError: No module named 'pandas'"} {
		if err := p.check(1, "", stderr); !strings.Contains(err.Error(), reason.Error()) {
			t.Errorf("got %v", err)
		}
	}
}
