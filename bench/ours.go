package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"time"
)

// maxConnections is more than any number of clients: each keeps its own.
const maxConnections = 1000

// ours runs programs on our server, over HTTP.
type ours struct {
	base   string
	client *http.Client
}

func newOurs(address string) *ours {
	return &ours{
		base: "http://" + address,
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConns: maxConnections, MaxIdleConnsPerHost: maxConnections},
			Timeout:   runTime,
		},
	}
}

// result is what matters here of an answer to POST /v1/execute.
type result struct {
	Stdout   string
	Stderr   string
	ExitCode *int `json:"exit_code"`
	End      struct{ Message string }
	Files    []struct {
		FileID string `json:"file_id"`
	}
}

// request is one way to run a program: a request whose answer comes when the program has
// ended.
type request struct {
	ours *ours
	path string
	code string         // before the program's
	more map[string]any // fields of the request
}

// plain is the plain way.
func (o *ours) plain() *request { return &request{ours: o, path: "/v1/execute"} }

func (r *request) run(ctx context.Context, p program) (timing, error) {
	fields := map[string]any{"code": r.code + p.code, "timeout_ms": runTime.Milliseconds()}
	maps.Copy(fields, r.more)
	body, err := json.Marshal(fields)
	if err != nil {
		return timing{}, fmt.Errorf("request: %w", err)
	}
	began := time.Now()
	answer, header, err := r.ours.exchange(ctx, http.MethodPost, r.path, body)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	var got result
	if err := json.Unmarshal(answer, &got); err != nil {
		return timing{}, fmt.Errorf("%w: %w: %.300q", errWrong, err, answer)
	}
	if got.ExitCode == nil {
		return timing{}, fmt.Errorf("%w: %s has no exit code: %s", errWrong, p.name, got.End.Message)
	}
	for _, file := range got.Files {
		if err := r.ours.drop(ctx, "/v1/files/"+file.FileID); err != nil {
			return timing{}, err
		}
	}
	return timing{took: took, stages: parseStages(header.Get("Server-Timing"))}, p.check(*got.ExitCode, got.Stdout, got.Stderr)
}

// exchange sends a request and reads the answer, which must be a good one.
func (o *ours) exchange(ctx context.Context, method, path string, body []byte) ([]byte, http.Header, error) {
	return o.exchangeWith(ctx, method, path, body, nil)
}

// exchangeWith does so with more headers.
func (o *ours) exchangeWith(ctx context.Context, method, path string, body []byte, more http.Header) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	maps.Copy(req.Header, more)
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, nil, lost(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, nil, lost(err)
	case resp.StatusCode >= http.StatusMultipleChoices:
		return nil, nil, &refusal{fmt.Errorf("server: %s: %.300q", resp.Status, answer)}
	}
	return answer, resp.Header, nil
}

// lost returns the error of an answer that did not arrive. A late one counts as
// refused; any other ends the measurement.
func lost(err error) error {
	err = fmt.Errorf("server: %w", err)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return &refusal{err}
	}
	return err
}

// drop deletes something.
func (o *ours) drop(ctx context.Context, path string) error {
	_, _, err := o.exchange(ctx, http.MethodDelete, path, nil)
	return err
}
