package runner

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

func TestDisplays(t *testing.T) {
	form := func(kind, data string) execution.Representation {
		return execution.Representation{Type: kind, Data: []byte(data)}
	}
	end := frame{kindEnded, written(nil)}
	for name, test := range map[string]struct {
		frames []frame
		want   [][]execution.Representation
		failed bool
	}{
		"forms of values": {
			[]frame{
				end,
				{kindForm, []byte("1text/plain")},
				{kindData, []byte("a")},
				{kindForm, []byte("0text/html")},
				{kindData, []byte("b")},
				{kindData, []byte("c")},
				{kindForm, []byte("1image/png")},
				{kindDone, nil},
			},
			[][]execution.Representation{{form("text/plain", "a"), form("text/html", "bc")}, {form("image/png", "")}},
			false,
		},
		"no media type": {
			[]frame{end, {kindForm, []byte("1nonsense")}, {kindData, []byte("a")}, {kindForm, []byte("0a/b")}, {kindDone, nil}},
			[][]execution.Representation{{form("a/b", "")}},
			false,
		},
		"more than allowed": {
			[]frame{end, {kindForm, []byte("1a/b")}, {kindData, []byte("123456789")}}, [][]execution.Representation{{form("a/b", "")}}, true,
		},
		"an empty piece":     {[]frame{end, {kindForm, []byte("1a/b")}, {kindData, nil}}, [][]execution.Representation{{form("a/b", "")}}, true},
		"before the end":     {[]frame{{kindForm, []byte("1a/b")}}, nil, true},
		"without a head":     {[]frame{end, {kindForm, nil}}, nil, true},
		"after files":        {[]frame{end, {kindFile, []byte("f")}, {kindForm, []byte("1a/b")}}, nil, true},
		"data without form":  {[]frame{end, {kindData, []byte("a")}}, nil, true},
		"data after a file":  {[]frame{end, {kindForm, []byte("1a/b")}, {kindFile, []byte("f")}, {kindData, []byte("x")}, {kindDone, nil}}, [][]execution.Representation{{form("a/b", "")}}, false},
		"a value of nothing": {[]frame{end, {kindForm, []byte("0a/b")}, {kindDone, nil}}, [][]execution.Representation{{form("a/b", "")}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestReport()
			failed := false
			for _, f := range test.frames {
				failed = failed || r.take(f) != nil
			}
			if diff := cmp.Diff(test.want, r.displays.values); diff != "" || failed != test.failed {
				t.Errorf("failed: %t; %s", failed, diff)
			}
		})
	}
}

// A form for which there is no memory is dropped, and the report goes on.
func TestDisplaysWithoutMemory(t *testing.T) {
	account := execution.NewBudget(1 << 20).Open("")
	defer account.Close()
	d := displays{room: 10 << 20}
	for _, head := range []string{"1a/b", "0c/d"} {
		if err := d.begin([]byte(head)); err != nil {
			t.Fatal(err)
		}
		size := 1
		if head == "1a/b" {
			size = 1 << 20
		}
		if err := d.add([]byte(strings.Repeat("x", size)), account); err != nil {
			t.Fatal(err)
		}
	}
	want := [][]execution.Representation{{{Type: "c/d", Data: []byte("x")}}}
	if diff := cmp.Diff(want, d.values); diff != "" {
		t.Error(diff)
	}
}
