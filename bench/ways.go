package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// way is one way to run a program.
type way interface {
	run(ctx context.Context, p program) (timing, error)
}

// streamed runs a program and reads its output as it comes. What counts is the time until
// the first of it.
type streamed struct {
	ours *ours
	path string
}

func (s *streamed) run(ctx context.Context, p program) (timing, error) {
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
	return timing{took: took}, p.check(0, output, "")
}

// creation creates sessions, and closes them.
type creation struct {
	ours  *ours
	ready func(ctx context.Context) error // waits until there is something to create them from
}

func (c *creation) run(ctx context.Context, _ program) (timing, error) {
	if err := c.ready(ctx); err != nil {
		return timing{}, err
	}
	began := time.Now()
	path, err := c.ours.createSession(ctx)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	return timing{took: took}, c.ours.drop(ctx, path)
}

// createSession creates a session and returns its path.
func (o *ours) createSession(ctx context.Context) (string, error) {
	answer, _, err := o.exchange(ctx, http.MethodPost, "/v1/sessions", []byte("{}"))
	if err != nil {
		return "", err
	}
	var created struct {
		SessionID string `json:"session_id"`
	}
	if err := json.Unmarshal(answer, &created); err != nil || created.SessionID == "" {
		return "", fmt.Errorf("%w: %.300q", errWrong, answer)
	}
	return "/v1/sessions/" + created.SessionID, nil
}

// upload uploads a file, and deletes it.
type upload struct {
	ours *ours
	form []byte
}

func (u *upload) run(ctx context.Context, _ program) (timing, error) {
	began := time.Now()
	path, err := u.ours.put(ctx, u.form)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	return timing{took: took}, u.ours.drop(ctx, path)
}

// download downloads a file.
type download struct {
	ours    *ours
	path    string
	content []byte // of the file
}

func (d *download) run(ctx context.Context, _ program) (timing, error) {
	began := time.Now()
	answer, _, err := d.ours.exchange(ctx, http.MethodGet, d.path, nil)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	if !bytes.Equal(answer, d.content) {
		return timing{}, fmt.Errorf("%w: the file has changed", errWrong)
	}
	return timing{took: took}, nil
}

// content returns the content of a file.
func content(megabytes int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), megabytes<<16) }

// form returns the body of a request that uploads a file.
func form(content []byte) []byte {
	const head, tail = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n", "\r\n--x--\r\n"
	return slices.Concat([]byte(head), content, []byte(tail))
}

// put uploads a file and returns its path.
func (o *ours) put(ctx context.Context, form []byte) (string, error) {
	header := http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}
	answer, _, err := o.exchangeWith(ctx, http.MethodPost, "/v1/files", form, header)
	if err != nil {
		return "", err
	}
	var file struct {
		FileID string `json:"file_id"`
	}
	if err := json.Unmarshal(answer, &file); err != nil || file.FileID == "" {
		return "", fmt.Errorf("%w: %.300q", errWrong, answer)
	}
	return "/v1/files/" + file.FileID, nil
}
