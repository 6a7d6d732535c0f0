package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"
)

// waysMB is the size of the file that runs are given, or make.
const waysMB = 10

// ways measures the other ways to run the program on our server, in turns with
// the plain one, which comes first: what they add to it.
func (m *measurement) ways(ctx context.Context) (results []sideResult, err error) {
	session, err := m.ours.createSession(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.ours.drop(ctx, "/v1/sessions/"+session)) }()
	keeper := &stored{ours: m.ours, content: bytes.Repeat([]byte("0123456789abcdef"), waysMB<<16)}
	file, err := keeper.put(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, keeper.drop(ctx, file)) }()
	in := "/v1/sessions/" + session
	run := func(more map[string]any, code string) *way {
		return &way{ours: m.ours, path: "/v1/execute", code: code, more: more}
	}
	other := *m
	other.sides = nil
	for _, w := range []struct {
		name string
		side side
	}{
		{"run", run(nil, "")},
		{"run, streamed: first output", &streamedWay{m.ours, "/v1/execute/stream"}},
		{"session: execute", &way{ours: m.ours, path: in + "/execute"}},
		{"session: first output", &streamedWay{m.ours, in + "/execute/stream"}},
		{"session: bash", &way{ours: m.ours, path: in + "/bash", more: map[string]any{"cmd": "echo 42"}}},
		{fmt.Sprintf("run, %d MB staged", waysMB), run(map[string]any{"files": []map[string]string{{"path": "a", "file_id": file}}}, "")},
		{fmt.Sprintf("run, %d MB made", waysMB), run(nil, fmt.Sprintf("open('a', 'wb').write(bytes(%d << 20)); ", waysMB))},
	} {
		other.sides = append(other.sides, contender{name: w.name, side: w.side, pause: m.opts.pause, calls: m.opts.ways})
	}
	m.say("ways: %d calls each", m.opts.ways)
	return other.paced(ctx)
}

// createSession starts a session and gives its id.
func (o *ours) createSession(ctx context.Context) (string, error) {
	var answer bytes.Buffer
	body := []byte("{}")
	err := send(ctx, http.MethodPost, o.base+"/v1/sessions", "application/json", bytes.NewReader(body), int64(len(body)), &answer)
	if err != nil {
		return "", err
	}
	var created struct {
		SessionID string `json:"session_id"`
	}
	err = json.Unmarshal(answer.Bytes(), &created)
	return created.SessionID, err
}

// drop deletes something.
func (o *ours) drop(ctx context.Context, path string) error {
	return send(ctx, http.MethodDelete, o.base+path, "", nil, 0, &bytes.Buffer{})
}

// way runs a program in one of the ways that answer when it has ended.
type way struct {
	ours *ours
	path string
	code string         // before the program's
	more map[string]any // fields of the request
}

func (w *way) run(ctx context.Context, p program) (timing, error) {
	fields := map[string]any{"code": w.code + p.code, "timeout_ms": runTime.Milliseconds()}
	maps.Copy(fields, w.more)
	body, err := json.Marshal(fields)
	if err != nil {
		return timing{}, fmt.Errorf("request: %w", err)
	}
	began := time.Now()
	answer, header, err := w.ours.exchange(ctx, http.MethodPost, w.path, body)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	var r struct {
		result

		Files []struct {
			FileID string `json:"file_id"`
		}
	}
	if err := json.Unmarshal(answer, &r); err != nil || r.ExitCode == nil {
		return timing{}, fmt.Errorf("%w: %.300q", errWrong, answer)
	}
	for _, file := range r.Files {
		if err := w.ours.drop(ctx, "/v1/files/"+file.FileID); err != nil {
			return timing{}, err
		}
	}
	return timing{answer: took, whole: took, stages: parseStages(header.Get("Server-Timing"))}, p.check(*r.ExitCode, r.Stdout, r.Stderr)
}

// streamedWay runs a program and reads its output as it comes. What counts is
// the time until the first of it.
type streamedWay struct {
	ours *ours
	path string
}

func (s *streamedWay) run(ctx context.Context, p program) (timing, error) {
	body, err := json.Marshal(map[string]any{"code": p.code, "timeout_ms": runTime.Milliseconds()})
	if err != nil {
		return timing{}, fmt.Errorf("request: %w", err)
	}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.ours.base+s.path, bytes.NewReader(body))
	if err != nil {
		return timing{}, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.ours.client.Do(req)
	if err != nil {
		return timing{}, lost(err)
	}
	defer func() { _ = resp.Body.Close() }()
	took, output := time.Duration(0), ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var event struct{ Data string }
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && json.Unmarshal([]byte(data), &event) == nil {
			if took == 0 {
				took = time.Since(began)
			}
			output += event.Data
		}
	}
	return timing{answer: took, whole: took}, p.check(0, output, "")
}
