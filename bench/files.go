package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// filesResult is one way to keep a file, and to get it back.
type filesResult struct {
	Side string `json:"side"`
	// Upload and Download are medians, in MB/s. A Download of 0 is none.
	Upload   float64 `json:"upload_mb_per_second"`
	Download float64 `json:"download_mb_per_second"`
	// Growth is by how much the server's resident memory grew at most, in MB.
	Growth float64 `json:"growth_mb,omitempty"`
}

// keeper is one way to keep a file. What put returns, get and drop are given.
type keeper interface {
	put(ctx context.Context) (id string, err error)
	get(ctx context.Context, id string, into io.Writer) error
	drop(ctx context.Context, id string) error
}

// filesRounds is how often each file comes and goes; the first does not count.
const filesRounds = 8

// files measures how fast a large file comes and goes: through our server, by
// plain means over HTTP, and by cp. All put it on the disk (fsync), in the same
// folder's file system.
func (m *measurement) files(ctx context.Context) (results []filesResult, err error) {
	m.say("files: %d MB, %d rounds", m.opts.files, filesRounds)
	folder, err := os.MkdirTemp("", "vivarium-bench-")
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	content := make([]byte, m.opts.files<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content) // never fails
	plain, err := servePlain(folder, content)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plain.server.Close()) }()
	copies := &copier{folder: folder, source: filepath.Join(folder, "source")}
	if err := os.WriteFile(copies.source, content, 0o600); err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	ours := &stored{ours: m.ours, content: content}
	before, err := forgetPeak(m.server.pid())
	if err != nil {
		return nil, err
	}
	sides := []*filesTurns{{name: "cp, fsync", keeper: copies}, {name: "handler, FileServer", keeper: plain}, {name: "vivarium", keeper: ours}}
	for range filesRounds {
		for _, side := range sides {
			if err := side.turn(ctx, content); err != nil {
				return nil, fmt.Errorf("%s: %w", side.name, err)
			}
		}
	}
	for _, side := range sides {
		results = append(results, side.result(m.opts.files))
	}
	peak, err := memoryMB(m.server.pid(), "VmHWM:")
	results[len(results)-1].Growth = peak - before
	return results, err
}

// filesTurns are the times of one side, in seconds.
type filesTurns struct {
	name   string
	keeper keeper
	up     []float64
	down   []float64
}

func (f *filesTurns) turn(ctx context.Context, content []byte) error {
	began := time.Now()
	id, err := f.keeper.put(ctx)
	if err != nil {
		return err
	}
	f.up = append(f.up, time.Since(began).Seconds())
	began = time.Now()
	rest := comparer(content)
	if err := f.keeper.get(ctx, id, &rest); err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: %d bytes of the file are missing", errWrong, len(rest))
	}
	f.down = append(f.down, time.Since(began).Seconds())
	return f.keeper.drop(ctx, id)
}

func (f *filesTurns) result(megabytes int) filesResult {
	rate := func(seconds []float64) float64 {
		counted := slices.Sorted(slices.Values(seconds[1:]))
		return float64(megabytes) / counted[len(counted)/2]
	}
	return filesResult{Side: f.name, Upload: rate(f.up), Download: rate(f.down)}
}

// comparer is what is still expected of a file.
type comparer []byte

func (c *comparer) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(*c, p) {
		return 0, fmt.Errorf("%w: the file has changed", errWrong)
	}
	*c = (*c)[len(p):]
	return len(p), nil
}

// copier keeps files with cp.
type copier struct{ folder, source string }

func (c *copier) put(ctx context.Context) (string, error) {
	target := filepath.Join(c.folder, "copy")
	if err := exec.CommandContext(ctx, "cp", c.source, target).Run(); err != nil {
		return "", fmt.Errorf("cp: %w", err)
	}
	file, err := os.OpenFile(target, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	return target, errors.Join(file.Sync(), file.Close())
}

func (c *copier) get(_ context.Context, id string, into io.Writer) error {
	file, err := os.Open(id)
	if err != nil {
		return err
	}
	_, err = io.Copy(into, struct{ io.Reader }{file})
	return errors.Join(err, file.Close())
}

func (c *copier) drop(_ context.Context, id string) error { return os.Remove(id) }

// plain keeps files with what the standard library has.
type plain struct {
	server  *http.Server
	base    string
	folder  string
	content []byte
}

func servePlain(folder string, content []byte) (*plain, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	p := &plain{base: "http://" + listener.Addr().String() + "/", folder: folder, content: content}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServer(http.Dir(folder)))
	mux.HandleFunc("POST /", p.save)
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = p.server.Serve(listener) }()
	return p, nil
}

func (p *plain) save(w http.ResponseWriter, r *http.Request) {
	file, err := os.Create(filepath.Join(p.folder, "plain"))
	if err == nil {
		_, err = io.Copy(file, r.Body)
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (p *plain) put(ctx context.Context) (string, error) {
	return "plain", send(ctx, http.MethodPost, p.base, "", bytes.NewReader(p.content), int64(len(p.content)), io.Discard)
}

func (p *plain) get(ctx context.Context, id string, into io.Writer) error {
	return send(ctx, http.MethodGet, p.base+id, "", nil, 0, into)
}

func (p *plain) drop(_ context.Context, id string) error {
	return os.Remove(filepath.Join(p.folder, id))
}

// stored keeps files with our server.
type stored struct {
	ours    *ours
	content []byte
}

func (s *stored) put(ctx context.Context) (string, error) {
	const head, tail = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n", "\r\n--x--\r\n"
	body := io.MultiReader(strings.NewReader(head), bytes.NewReader(s.content), strings.NewReader(tail))
	var answer bytes.Buffer
	err := send(ctx, http.MethodPost, s.ours.base+"/v1/files", "multipart/form-data; boundary=x", body, int64(len(head)+len(s.content)+len(tail)), &answer)
	if err != nil {
		return "", err
	}
	var file struct {
		FileID string `json:"file_id"`
	}
	err = json.Unmarshal(answer.Bytes(), &file)
	return file.FileID, err
}

func (s *stored) get(ctx context.Context, id string, into io.Writer) error {
	return send(ctx, http.MethodGet, s.ours.base+"/v1/files/"+id, "", nil, 0, into)
}

func (s *stored) drop(ctx context.Context, id string) error {
	return send(ctx, http.MethodDelete, s.ours.base+"/v1/files/"+id, "", nil, 0, io.Discard)
}

// send sends a request and writes the answer's body, which must be a good one.
func send(ctx context.Context, method, url, kind string, body io.Reader, size int64, into io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	_, err = io.CopyBuffer(into, struct{ io.Reader }{resp.Body}, make([]byte, 256<<10))
	return err
}

// forgetPeak has the kernel forget a process's largest resident memory, and
// gives the present one in MB.
func forgetPeak(pid int) (float64, error) {
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0); err != nil {
		return 0, fmt.Errorf("memory of the server: %w", err)
	}
	return memoryMB(pid, "VmRSS:")
}
