package cli

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

//go:embed demo/sales.csv
var demoData []byte

//go:embed demo/sales.py
var demoCode string

// showDemo sends a real request to the server's HTTP API and prints the answer, with
// a command to try next.
func showDemo(ctx context.Context, system System, address string) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(system.Stdout, format+"\n", args...) }
	say("\nA program, run over HTTP with a CSV file next to it:\n\n%s", indent(demoCode))
	answer, err := postDemo(ctx, address)
	if err != nil {
		say("The example failed: %v\nThe log has the cause; `vivarium doctor` shows what to change.", err)
		return
	}
	say("Its output:\n\n%s", indent(answer.Stdout+answer.Stderr))
	for _, file := range answer.Files {
		content, err := askDemo(ctx, http.MethodGet, "http://"+address+"/v1/files/"+file.FileID, nil)
		if err != nil {
			say("The example failed: %v", err)
			return
		}
		say("and, in %s, from /v1/files/%s:\n\n%s", file.Path, file.FileID, indent(string(content)))
	}
	say("(The program ran for %d ms, after %d ms of waiting.)\n", answer.DurationMS, answer.QueueMS)
	say(`The server is listening. Next:

  curl -s http://%s/v1/execute -H 'Content-Type: application/json' -d '{"code": "print(6*7)"}'

Or read http://%s/docs; MCP clients connect to http://%s/mcp. Ctrl-C ends it.`, address, address, address)
}

type demoAnswer struct {
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
	DurationMS int64  `json:"duration_ms"`
	QueueMS    int64  `json:"queue_ms"`
	Files      []struct {
		Path   string `json:"path"`
		FileID string `json:"file_id"`
	} `json:"files"`
}

func postDemo(ctx context.Context, address string) (*demoAnswer, error) {
	body, err := json.Marshal(map[string]any{
		"code": demoCode, "timeout_ms": 30000,
		"files": []map[string]string{{"path": "sales.csv", "content_base64": base64.StdEncoding.EncodeToString(demoData)}},
	})
	if err != nil {
		return nil, err
	}
	text, err := askDemo(ctx, http.MethodPost, "http://"+address+"/v1/execute", body)
	if err != nil {
		return nil, err
	}
	answer := new(demoAnswer)
	return answer, json.Unmarshal(text, answer)
}

// askDemo sends a request to the server's HTTP API and returns the answer's body.
func askDemo(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	const patience = 30 * time.Minute // the image may have to be built first
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return text, err
}

func indent(text string) string {
	var b bytes.Buffer
	for line := range bytes.Lines([]byte(text)) {
		b.WriteString("    ")
		b.Write(line)
	}
	return b.String()
}
