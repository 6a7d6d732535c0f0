package integration

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// browser is a Chromium without a window, for pages of the server's.
type browser struct {
	ctx context.Context //nolint:containedctx // the library's handle of a browser
}

// startBrowser starts one that lasts until the test's end.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	ctx, cancel := chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(
		chromedp.NoSandbox, // it is root who runs the tests, and the pages are ours
		chromedp.Flag("disable-gpu", true),
	))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("the tests of pages need Chromium (go tool task setup-browser): %v", err)
	}
	return &browser{ctx}
}

// page is a tab.
type page struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // the library's handle of a tab

	mu       sync.Mutex
	problems []string // errors and warnings of the page's, such as of its policy
}

// open opens an address. What the page has to complain about by the test's end
// fails the test, but for answers of the server that it asked for.
func (b *browser) open(t *testing.T, url string) *page {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx)
	t.Cleanup(closeTab)
	p := &page{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	go func() {
		for message, err := range messages {
			if err == nil {
				p.note(message)
			}
		}
	}()
	p.do(chromedp.Navigate(url))
	return p
}

func (p *page) note(message chromedp.ConsoleMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, message.String())
}

// wantNoProblems fails the test if the page has complained.
func (p *page) wantNoProblems() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.problems) > 0 {
		p.t.Errorf("the page complains: %q", p.problems)
	}
}

// do acts on the page.
func (p *page) do(steps ...chromedp.Action[struct{}]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(p.ctx); err != nil { // a tab starts without the deadline
		p.t.Fatal(err)
	}
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// await waits until an expression is true.
func (p *page) await(expression string) {
	p.t.Helper()
	wait := chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(patience), chromedp.WithPollingInterval(20e6))
	if _, err := chromedp.Run(p.ctx, wait); err != nil {
		body, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
		p.t.Fatalf("%s: %v\n%s", expression, err, body)
	}
}

// evaluate gives an expression's value.
func evaluate[T any](p *page, format string, arguments ...any) T {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](fmt.Sprintf(format, arguments...)))
	if err != nil {
		p.t.Fatalf(format+": %v", append(arguments, err)...)
	}
	return value
}
