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

// Notifications are sent after 2 s, then each second. The result waits for none.
func TestProgress(t *testing.T) {
	for name, test := range map[string]struct {
		takes time.Duration
		want  []string
	}{
		"a short run":                          {1900 * time.Millisecond, nil},
		"a long run":                           {3500 * time.Millisecond, []string{"2 line 1", "3 line 2"}},
		"a run that ends after a notification": {3020 * time.Millisecond, []string{"2 line 1", "3 line 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				started := time.Now()
				var sent []string
				p := newProgress(t.Context(), "token", func(_ context.Context, method string, params map[string]any) error {
					if method != "notifications/progress" || params["progressToken"] != "token" {
						t.Errorf("%s %v", method, params)
					}
					sent = append(sent, fmt.Sprintf("%v %v", params["progress"], params["message"]))
					return nil
				})
				for i := 0; ; i++ {
					p.output(execution.Stdout, fmt.Sprintf("line %d\n", i))
					if left := test.takes - time.Since(started); left < 1001*time.Millisecond {
						time.Sleep(left)
						break
					}
					time.Sleep(1001 * time.Millisecond)
				}
				p.stop()
				if took := time.Since(started); took != test.takes {
					t.Errorf("it took %v", took)
				}
				if diff := cmp.Diff(test.want, sent); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The message is the latest line that shows something, of either stream.
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
				p := newProgress(t.Context(), 1, func(context.Context, string, map[string]any) error { return errors.New("the client does not read") })
				for _, p0 := range test.printed {
					p.output(p0.stream, p0.text)
				}
				time.Sleep(5 * time.Second)
				if got := p.message(); got != test.want {
					t.Errorf("%q", got)
				}
				p.stop()
			})
		})
	}
}
