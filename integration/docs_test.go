package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
)

// description is what the tests need of /openapi.json.
type description struct {
	Paths map[string]map[string]struct {
		OperationID string `json:"operationId"`
		RequestBody struct{ Content map[string]message }
		Responses   map[string]struct{ Content map[string]message }
	}
}

type message struct {
	Examples map[string]struct{ Value json.RawMessage }
}

func describe(t *testing.T) description {
	t.Helper()
	resp, err := http.Get(shared.server.url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var d description
	if err := json.NewDecoder(resp.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

// answers lists every answer of every operation, as "POST /v1/files 201".
func (d description) answers() []string {
	var list []string
	for path, item := range d.Paths {
		for method, operation := range item {
			for status := range operation.Responses {
				list = append(list, strings.ToUpper(method)+" "+path+" "+status)
			}
		}
	}
	slices.Sort(list)
	return list
}

// Programs that the description has as examples do what it says.
func TestExamplesAreTrue(t *testing.T) {
	operation := describe(t).Paths["/v1/execute"]["post"]
	requests := operation.RequestBody.Content["application/json"].Examples
	answers := operation.Responses["200"].Content["application/json"].Examples
	if len(answers) < 3 {
		t.Errorf("there are %d examples", len(answers))
	}
	for name, want := range answers {
		t.Run(name, func(t *testing.T) {
			got := post(t, "/v1/execute", requests[name].Value)
			if diff := cmp.Diff(steady(t, want.Value), steady(t, got)); diff != "" {
				t.Errorf("the description and the answer differ (-described +answered):\n%s", diff)
			}
		})
	}
}

// The stream that the description has as an example is what its program gives,
// but for how the output is cut into events.
func TestStreamExampleIsTrue(t *testing.T) {
	operation := describe(t).Paths["/v1/execute/stream"]["post"]
	var want string
	if err := json.Unmarshal(operation.Responses["200"].Content["text/event-stream"].Examples["steps"].Value, &want); err != nil {
		t.Fatal(err)
	}
	got := post(t, "/v1/execute/stream", operation.RequestBody.Content["application/json"].Examples["steps"].Value)
	if diff := cmp.Diff(gather(t, want), gather(t, string(got))); diff != "" {
		t.Errorf("the description and the stream differ (-described +streamed):\n%s", diff)
	}
}

// gathered is what a stream says in all.
type gathered struct {
	Output map[string]string
	Result map[string]any
}

func gather(t *testing.T, stream string) gathered {
	t.Helper()
	all := gathered{Output: map[string]string{}}
	for block := range strings.SplitSeq(strings.TrimSpace(stream), "\n\n") {
		name, data, _ := strings.Cut(strings.TrimPrefix(block, "event: "), "\ndata: ")
		switch name {
		case "output":
			var event struct{ Stream, Data string }
			if err := json.Unmarshal([]byte(data), &event); err != nil {
				t.Fatalf("%v in %s", err, data)
			}
			all.Output[event.Stream] += event.Data
		case "result":
			all.Result = steady(t, []byte(data))
		default:
			t.Errorf("%q is neither output nor a result", block)
		}
	}
	return all
}

func post(t *testing.T, path string, body []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, shared.server.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// steady is an answer without what no two runs share.
func steady(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var a map[string]any
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for _, varies := range []string{"duration_ms", "queue_ms", "usage"} {
		if a[varies] == nil {
			t.Errorf("%s is not in %s", varies, text)
		}
		delete(a, varies)
	}
	files, _ := a["files"].([]any)
	for _, file := range files {
		delete(file.(map[string]any), "file_id")
	}
	return a
}

const everyAnswer = `[...document.querySelectorAll(".operation")].flatMap(operation =>
	[...operation.querySelectorAll(".answer")].map(answer => operation.dataset.route + " " + answer.dataset.status)).sort()`

// The pages of the description, in a browser.
func TestDocsPages(t *testing.T) {
	b := startBrowser(t)
	docs := func(t *testing.T, path string) *page {
		t.Helper()
		p := b.open(t, shared.server.url+path)
		p.await(`document.querySelectorAll(".operation").length > 0`)
		return p
	}
	for path, forms := range map[string]bool{"/docs": true, "/redoc": false} {
		t.Run("everything is on "+path, func(t *testing.T) {
			p := docs(t, path)
			if diff := cmp.Diff(describe(t).answers(), evaluate[[]string](p, everyAnswer)); diff != "" {
				t.Errorf("the description and the page differ:\n%s", diff)
			}
			operations, found := evaluate[int](p, `document.querySelectorAll(".operation").length`), evaluate[int](p, `document.forms.length`)
			if forms && found != operations || !forms && found != 0 {
				t.Errorf("%d operations have %d forms", operations, found)
			}
			p.wantNoProblems()
		})
	}
	t.Run("run", func(t *testing.T) { tryRun(t, docs(t, "/docs")) })
	t.Run("text stays text", func(t *testing.T) { tryMarkup(t, docs(t, "/docs")) })
	t.Run("faults", func(t *testing.T) { tryFaults(t, docs(t, "/docs")) })
	t.Run("stream", func(t *testing.T) { tryStream(t, docs(t, "/docs")) })
	t.Run("files", func(t *testing.T) { tryFiles(t, docs(t, "/docs")) })
	t.Run("a link to an operation", func(t *testing.T) {
		p := docs(t, "/docs#delete-file")
		p.await(`(top => top >= 0 && top < innerHeight)(document.getElementById("delete-file").getBoundingClientRect().top)`)
	})
	t.Run("a narrow screen", func(t *testing.T) {
		p := docs(t, "/docs")
		p.do(chromedp.EmulateViewport(360, 740))
		if width := evaluate[int](p, `document.documentElement.scrollWidth`); width > 360 {
			t.Errorf("the page is %d wide", width)
		}
	})
}

// On a server that asks for a key the page has a field for it, and sends it.
func TestDocsPageWithAKey(t *testing.T) {
	s := startServer(t, "API_KEYS="+annasKey, "POOL_SIZE=1")
	p := startBrowser(t).open(t, s.url+"/docs")
	p.await(`document.querySelectorAll(".operation").length > 0 && document.getElementById("credentials") !== null`)
	p.fill("execute", "body", `{"code": "print(6*7)"}`)
	p.send("execute")
	p.awaitText("#execute .result", "Not authenticated")
	p.do(chromedp.Focus(chromedp.CSS("#credentials input")), chromedp.KeyEvent(annasKey+"\r"))
	p.send("execute")
	p.awaitText("#execute .result .body", `42\n`)
}

// tryRun sends an example by the keyboard alone.
func tryRun(t *testing.T, p *page) {
	t.Helper()
	p.do(chromedp.Focus(chromedp.CSS("#execute button[type=submit]")), chromedp.KeyEvent("\r"))
	p.await(`document.querySelector("#execute .result .body") !== null`)
	got := steady(t, []byte(evaluate[string](p, `document.querySelector("#execute .result .body").textContent`)))
	want := describe(t).Paths["/v1/execute"]["post"].Responses["200"].Content["application/json"].Examples["expression"]
	if diff := cmp.Diff(steady(t, want.Value), got); diff != "" {
		t.Errorf("the description and the answer differ:\n%s", diff)
	}
	p.wantNoProblems()
}

// fill sets a field of an operation's form.
func (p *page) fill(operation, field, value string) {
	p.t.Helper()
	p.do(chromedp.SetValue(chromedp.CSS("#"+operation+" form [name="+field+"]"), value))
}

func (p *page) send(operation string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS("#" + operation + " button[type=submit]")))
}

// awaitText waits for some text in a part of the page, and gives all of it.
func (p *page) awaitText(selector, want string) string {
	p.t.Helper()
	quoted, err := json.Marshal(want)
	if err != nil {
		p.t.Fatal(err)
	}
	p.await(`[...document.querySelectorAll("` + selector + `")].some(element => element.textContent.includes(` + string(quoted) + `))`)
	return evaluate[string](p, `[...document.querySelectorAll("%s")].map(element => element.textContent).join("\n")`, selector)
}

// tryMarkup runs a program that prints markup.
func tryMarkup(t *testing.T, p *page) {
	t.Helper()
	const markup = `<img src=x onerror=alert(1)><script>alert(2)</script>`
	for _, operation := range []string{"execute", "execute-stream"} {
		p.fill(operation, "body", `{"code": "print('`+markup+`')"}`)
		p.send(operation)
		p.awaitText("#"+operation+" .result", markup)
		if found := evaluate[int](p, `document.querySelectorAll(".result img, .result script").length`); found != 0 {
			t.Errorf("%s: the page has made %d elements of a program's output", operation, found)
		}
	}
	p.wantNoProblems()
}

// tryFaults sends what the server refuses.
func tryFaults(t *testing.T, p *page) {
	t.Helper()
	p.fill("execute", "body", `{"code": 1, "timeout_ms": "soon"}`)
	p.send("execute")
	text := p.awaitText("#execute .result ul", "timeout_ms")
	if !strings.Contains(text, "body → code: expected string") {
		t.Errorf("the faults are told as %q", text)
	}
	p.fill("download-file", "file_id", "unknown")
	p.send("download-file")
	p.awaitText("#download-file .result", "File with ID 'unknown' not found")
}

// tryStream sees output come while the program runs, and stops it.
func tryStream(t *testing.T, p *page) {
	t.Helper()
	p.fill("execute-stream", "body", `{"timeout_ms": 60000, "code": "import sys, time\nprint('out')\nprint('err', file=sys.stderr)\ntime.sleep(60)"}`)
	p.send("execute-stream")
	p.awaitText("#execute-stream .output .stdout", "out\n")
	p.awaitText("#execute-stream .output .stderr", "err\n")
	p.do(chromedp.Click(chromedp.CSS("#execute-stream button[type=button]")))
	p.awaitText("#execute-stream .result [role=alert]", "Stopped.")

	p.fill("execute-stream", "body", `{"code": "print('again')"}`)
	p.send("execute-stream")
	p.awaitText("#execute-stream .output", "again\n")
	p.awaitText("#execute-stream .result .body", `"reason": "exited"`)
	p.wantNoProblems()
}

// tryFiles uploads a file, gets it back, and deletes it.
func tryFiles(t *testing.T, p *page) {
	t.Helper()
	const content = "name,score\nAda,9\n"
	path := filepath.Join(t.TempDir(), "scores of ü.csv")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.SetUploadFiles(chromedp.CSS("#upload-file [name=file]"), []string{path}))
	p.send("upload-file")
	p.awaitText("#upload-file .result .status", "201")
	p.awaitText("#upload-file .result .body", "file_id")
	var stored struct {
		ID string `json:"file_id"`
	}
	if err := json.Unmarshal([]byte(evaluate[string](p, `document.querySelector("#upload-file .body").textContent`)), &stored); err != nil {
		t.Fatal(err)
	}

	p.fill("download-file", "file_id", stored.ID)
	p.send("download-file")
	p.awaitText("#download-file .result a", "Save scores of ü.csv (17 bytes)")
	p.fill("delete-file", "file_id", stored.ID)
	p.send("delete-file")
	p.awaitText("#delete-file .result", "No content.")
	p.wantNoProblems()
}
