package mcp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// A client hears of a run after 2 s, then each second, and not just before the
// result.
func TestProgress(t *testing.T) {
	for name, test := range map[string]struct {
		takes time.Duration
		want  []string
		until time.Duration // when the result may go out
	}{
		"a short run":              {1900 * time.Millisecond, nil, 1900 * time.Millisecond},
		"a long run":               {3500 * time.Millisecond, []string{"2 line 1", "3 line 2"}, 3500 * time.Millisecond},
		"one that ends just after": {3020 * time.Millisecond, []string{"2 line 1", "3 line 2"}, 3100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var told []string
				p := newProgress(t.Context(), "token", func(_ context.Context, method string, params map[string]any) error {
					if method != "notifications/progress" || params["progressToken"] != "token" {
						t.Errorf("%s %v", method, params)
					}
					told = append(told, fmt.Sprintf("%v %v", params["progress"], params["message"]))
					return nil
				})
				for i := 0; ; i++ {
					p.output(execution.Stdout, fmt.Sprintf("line %d\n", i))
					if left := test.takes - time.Since(began); left < 1001*time.Millisecond {
						time.Sleep(left)
						break
					}
					time.Sleep(1001 * time.Millisecond)
				}
				p.stop(t.Context())
				if took := time.Since(began); took != test.until {
					t.Errorf("it took %v", took)
				}
				if diff := cmp.Diff(test.want, told); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The message is the latest line that shows something, whoever printed it.
func TestProgressMessage(t *testing.T) {
	type printed struct {
		stream execution.Stream
		text   string
	}
	for name, test := range map[string]struct {
		printed []printed
		want    string
	}{
		"nothing":        {nil, "running for 5 s"},
		"blank lines":    {[]printed{{execution.Stdout, "\n \n"}}, "running for 5 s"},
		"a line":         {[]printed{{execution.Stdout, "one\ntwo\n\n"}}, "two"},
		"in two parts":   {[]printed{{execution.Stdout, "one\ntw"}, {execution.Stdout, "o"}}, "two"},
		"the other":      {[]printed{{execution.Stdout, "one\n"}, {execution.Stderr, "50%|#####     |\r60%|######    |"}}, "60%|######    |"},
		"a cleared line": {[]printed{{execution.Stdout, "working\r\x1b[K"}}, "working"},
		"escapes behind": {[]printed{{execution.Stdout, "visible\n\x1b[0m"}}, "visible"},
		"escapes":        {[]printed{{execution.Stdout, "\x1b[1mbold\x1b[0m\n"}}, "bold"},
		"a long line":    {[]printed{{execution.Stdout, strings.Repeat("é", 3000)}}, strings.Repeat("é", 100) + "..."},
		"half a long é":  {[]printed{{execution.Stdout, "x" + strings.Repeat("é", 3000)}}, strings.Repeat("é", 100) + "..."},
		"a line and end": {[]printed{{execution.Stdout, strings.Repeat("x", 999) + "\nend\n"}}, "end"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProgress(t.Context(), 1, func(context.Context, string, map[string]any) error { return errors.New("nobody reads") })
				for _, p0 := range test.printed {
					p.output(p0.stream, p0.text)
				}
				time.Sleep(5 * time.Second)
				if got := p.message(); got != test.want {
					t.Errorf("%q", got)
				}
				p.stop(t.Context())
			})
		})
	}
}

// A call whose client has left waits for nothing.
func TestProgressOfACancelledCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newProgress(ctx, 1, func(context.Context, string, map[string]any) error { return nil })
		time.Sleep(firstProgress)
		synctest.Wait()
		cancel()
		began := time.Now()
		p.stop(ctx)
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestCut(t *testing.T) {
	for name, test := range map[string]struct {
		text    string
		most    int
		want    string
		missing int
	}{
		"short":      {"abc", 3, "abc", 0},
		"lines":      {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", 8, "1\n2\n[... 10 of 18 bytes are left out here ...]\n8\n9\n", 10},
		"one line":   {"0123456789", 4, "01\n[... 6 of 10 bytes are left out here ...]\n89", 6},
		"characters": {"éééééééé", 6, "é\n[... 12 of 16 bytes are left out here ...]\né", 12},
		"nothing":    {"abc", 0, "\n[... 3 of 3 bytes are left out here ...]\n", 3},
	} {
		t.Run(name, func(t *testing.T) {
			if got, missing := cut(test.text, test.most); got != test.want || missing != test.missing {
				t.Errorf("%d: %q", missing, got)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"plain\n", "\x1b[31mred\x1b[0m", "a\rb", "\x1b]0;title", "\xff\x9b31m", "\x1b]\nx\u009b3\nm", "\u202e\x00\u009b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "\ufffd") // as all output is
		cleaned := clean(text)
		if !isPlain(cleaned) || clean(cleaned) != cleaned {
			t.Errorf("%q becomes %q", text, cleaned)
		}
		if strings.Count(cleaned, "\n") < strings.Count(text, "\n") {
			t.Errorf("%q loses lines: %q", text, cleaned)
		}
	})
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1: "-1", -999: "-999", -1000: "-1,000"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1 hour", 24 * time.Hour: "24 hours", 90 * time.Minute: "90 minutes", 61 * time.Second: "61 seconds",
		time.Minute: "1 minute", 1500 * time.Millisecond: "1500 ms", time.Second: "1 second",
	} {
		if got := words(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}
