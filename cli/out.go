package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
)

// outFolder writes a run's files below a folder while they arrive, and nowhere else: the
// program chose their names. Without a folder it discards them.
type outFolder struct {
	root    *os.Root // nil if files are not saved
	written []string
	err     error // why not all files could be saved
}

// newOutFolder makes the folder. An empty path stands for no folder.
func newOutFolder(folder string) (*outFolder, error) {
	if folder == "" {
		return &outFolder{}, nil
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(folder)
	return &outFolder{root: root}, err
}

// keep implements [execution.Keep].
func (o *outFolder) keep(_ context.Context, name string, content io.Reader) (string, error) {
	if o.root == nil {
		return name, nil
	}
	into := &savedFile{}
	err := o.root.MkdirAll(path.Dir(name), 0o750)
	if err == nil {
		into.file, err = o.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		o.err = errors.Join(o.err, err)
		return "", err
	}
	o.written = append(o.written, name)
	_, err = io.Copy(into, content)
	if closed := into.file.Close(); into.err == nil {
		into.err = closed
	}
	o.err = errors.Join(o.err, into.err)
	if err = errors.Join(err, into.err); err != nil {
		_ = o.root.Remove(name) // a part of a file is none
	}
	return name, err
}

// savedFile remembers why it could not be written: the content has errors of its own.
type savedFile struct {
	file *os.File
	err  error
}

func (s *savedFile) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	s.err = errors.Join(s.err, err)
	return n, err
}

// discard deletes what was written, for a run that failed.
func (o *outFolder) discard() {
	for _, name := range o.written {
		_ = o.root.Remove(name)
	}
}

// close closes the folder. It returns why not all files could be saved.
func (o *outFolder) close() error {
	if o.root == nil {
		return nil
	}
	return errors.Join(o.err, o.root.Close())
}
