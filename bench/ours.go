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

// readyTime bounds the time until the server can run programs.
const readyTime = time.Minute

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
}

// run asks for one run.
func (o *ours) run(ctx context.Context, p program) (timing, error) {
	body, err := json.Marshal(map[string]any{"code": p.code, "timeout_ms": runTime.Milliseconds()})
	if err != nil {
		return timing{}, fmt.Errorf("request: %w", err)
	}
	began := time.Now()
	answer, header, err := o.exchange(ctx, http.MethodPost, "/v1/execute", body)
	took := time.Since(began)
	if err != nil {
		return timing{}, err
	}
	var r result
	if err := json.Unmarshal(answer, &r); err != nil {
		return timing{}, fmt.Errorf("%w: %w: %.300q", errWrong, err, answer)
	}
	if r.ExitCode == nil {
		return timing{}, fmt.Errorf("%w: %s has no exit code: %s", errWrong, p.name, r.End.Message)
	}
	return timing{answer: took, whole: took, stages: parseStages(header.Get("Server-Timing"))}, p.check(*r.ExitCode, r.Stdout, r.Stderr)
}

// exchange sends a request and reads the answer, which must be a 200.
func (o *ours) exchange(ctx context.Context, method, path string, body []byte) ([]byte, http.Header, error) {
	return o.exchangeWith(ctx, method, path, body, nil)
}

// exchangeWith does so with more headers.
func (o *ours) exchangeWith(ctx context.Context, method, path string, body []byte, more http.Header) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("request: %w", err)
	}
	maps.Copy(req.Header, more)
	req.Header.Set("Content-Type", "application/json")
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, nil, lost(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, nil, lost(err)
	case resp.StatusCode != http.StatusOK:
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

// ready waits until the server has sandboxes, in the isolation that it was started
// for.
func (o *ours) ready(ctx context.Context) error {
	const pause = 100 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, errors.New("the server has no sandboxes"))
	defer cancel()
	for {
		answer, _, err := o.exchange(ctx, http.MethodGet, "/health", nil)
		if err != nil {
			return err
		}
		var health struct{ Status, Message string }
		if err := json.Unmarshal(answer, &health); err != nil {
			return fmt.Errorf("server: /health: %w", err)
		}
		if health.Status == "ok" {
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("%w: %s", err, health.Message)
		}
	}
}
