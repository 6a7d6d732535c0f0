package filestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"gocloud.dev/blob"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Put stores all of r under a new id, for the request's owner. After an error nothing is
// stored. An error of r is returned as it is. Other errors are an [*execution.Error]
// with code [execution.Cancelled] if ctx has ended, [execution.StoreFull] if the store or
// the disk is full, and [execution.Unavailable] if the disk is not writable.
func (s *Store) Put(ctx context.Context, name string, r io.Reader) (Info, error) {
	if err := s.ready(); err != nil {
		return Info{}, err
	}
	info := Info{ID: execution.NewID(), Name: name, Owner: execution.OwnerOf(ctx)}
	info.key = folderOf(info.Owner) + info.ID
	in := &meter{store: s, id: info.ID, r: r}
	err := in.charge(0)
	if err == nil {
		err = s.write(ctx, info.key, in)
	}
	if err == nil {
		info.Size, info.Uploaded = in.taken, time.Now().UTC().Truncate(time.Millisecond)
		err = s.writeMeta(ctx, info)
	}
	if err != nil {
		s.deleteObjects(ctx, info.key) // a part of it may exist, or all of it without an answer of the bucket
		s.usage.abandon(info.ID)
		if in.err == nil {
			err = s.explain(err)
		}
		return Info{}, err
	}
	s.usage.add(info.ID)
	return info, nil
}

// explain turns an error of the disk into one for users. It returns other errors as they
// are.
func (s *Store) explain(err error) error {
	if _, known := errors.AsType[*execution.Error](err); known || s.folder == "" {
		return err
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &execution.Error{Code: execution.StoreFull, Message: "The disk of the file store is full. Delete files, or ask the operator of the server to free space", Err: err}
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &execution.Error{Code: execution.Unavailable, Message: "The file store is not writable: FILE_STORAGE_DIR must name a folder that the server can write to", Err: err}
	}
	return err
}

func (s *Store) writeMeta(ctx context.Context, info Info) error {
	meta, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("file store: %w", err)
	}
	return s.write(ctx, info.key+metaSuffix, bytes.NewReader(meta))
}

// meter takes room in the store for the bytes that are read through it.
type meter struct {
	store          *Store
	id             string
	r              io.Reader
	taken, charged int64
	err            error // of r, except io.EOF
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF {
		m.err = err
	}
	size, limit := m.taken+int64(n), m.store.opts.MaxFileBytes
	if size > limit {
		return 0, &execution.Error{Code: execution.TooLarge, Message: fmt.Sprintf("File size exceeds maximum of %d MB", limit>>20)}
	}
	if err := m.charge(size); err != nil {
		return 0, err
	}
	m.taken = size
	return n, err
}

// charge takes the room for a file of a size that it does not have yet.
func (m *meter) charge(size int64) error {
	more, all := roomOf(size)-m.charged, m.store.opts.MaxBytes
	if more <= 0 {
		return nil
	}
	if !m.store.usage.take(m.id, more, all) {
		return &execution.Error{Code: execution.StoreFull, Message: fmt.Sprintf(
			"The file store is full: all files together may have %d MB (FILE_STORE_MAX_MB). Delete files, or wait until some expire", all>>20)}
	}
	m.charged += more
	return nil
}

// write writes one object. It returns when the object is on the disk or acknowledged by
// the object store. After an error a part of it may exist.
func (s *Store) write(ctx context.Context, key string, r io.Reader) error {
	if s.folder != "" {
		return s.writeFile(ctx, key, r)
	}
	in := &source{ctx: ctx, r: r}
	err := s.upload(ctx, key, in)
	switch {
	case in.err != nil:
		return in.err
	case err != nil:
		return failure(ctx, err)
	}
	return nil
}

// uploadTime bounds an upload to an object store.
const uploadTime = 30 * time.Minute

// upload outlasts ctx: the client library for S3 aborts an upload whose reader fails, but
// not one whose context has ended.
func (s *Store) upload(ctx context.Context, key string, r io.Reader) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), uploadTime)
	defer cancel()
	options := s.uploadOptions()
	account, cost := execution.AccountOf(ctx), uploadParts*int64(options.BufferSize)
	if err := account.Take(cost); err != nil {
		return err
	}
	defer account.Give(cost)
	return s.bucket.Upload(ctx, key, r, options)
}

// source keeps the error of its reader. It fails at the reader's end if the request's
// context has ended by then.
type source struct {
	ctx context.Context //nolint:containedctx // Read has no other way to get it
	r   io.Reader
	err error // except io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err == io.EOF { //nolint:errorlint // an error that wraps io.EOF is not the end
		if s.ctx.Err() == nil {
			return n, err
		}
		n, err = 0, failure(s.ctx, err)
	}
	s.err = err
	return n, err
}

const contentType = "application/octet-stream"

// uploadParts is how many parts an upload holds in memory: the first, one that is sent
// and one that is read.
const uploadParts = 3

// uploadOptions returns options that bound the memory of an upload.
func (s *Store) uploadOptions() *blob.WriterOptions {
	const leastPart, maxParts, atOnce = 5 << 20, 10_000, 1 // the limits of S3
	part := max(leastPart, s.opts.MaxFileBytes/maxParts+1)
	return &blob.WriterOptions{
		ContentType: contentType, BufferSize: int(part), MaxConcurrency: atOnce,
		BeforeWrite: func(as func(any) bool) error {
			bufferLess(s.bucket, as, part, atOnce)
			return nil
		},
	}
}

// writeFile writes an object that is a file in a folder.
func (s *Store) writeFile(ctx context.Context, key string, r io.Reader) error {
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	folder := path.Dir(key)
	if err := s.makeOwnersFolder(folder); err != nil {
		return err
	}
	var file *os.File
	w, err := s.bucket.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType: contentType,
		BeforeWrite: func(as func(any) bool) error {
			as(&file)
			return nil
		},
	})
	if err != nil {
		return failure(ctx, err)
	}
	if err = copyAll(w, r); err == nil {
		err = file.Sync()
	}
	if err != nil {
		abort()
		_ = w.Close() // it was aborted
		return err
	}
	if err := w.Close(); err != nil {
		return failure(ctx, err)
	}
	return s.syncFolder(folder)
}

// copyAll copies r to w. It hides their other methods: the meter must see each byte.
func copyAll(w io.Writer, r io.Reader) error {
	const chunk = 256 << 10
	full := bufio.NewWriterSize(struct{ io.Writer }{w}, chunk) // a form is read in pieces of 4 KB
	if _, err := full.ReadFrom(struct{ io.Reader }{r}); err != nil {
		return err
	}
	return full.Flush()
}

// makeOwnersFolder creates a folder in the store's folder unless it exists.
func (s *Store) makeOwnersFolder(folder string) error {
	err := os.Mkdir(filepath.Join(s.folder, folder), 0o700)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil:
		return fmt.Errorf("file store: %w", err)
	}
	return s.syncFolder(".")
}

// syncFolder writes the new names in a folder to the disk.
func (s *Store) syncFolder(name string) error {
	folder, err := os.Open(filepath.Join(s.folder, name))
	if err != nil {
		return fmt.Errorf("file store: %w", err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}
