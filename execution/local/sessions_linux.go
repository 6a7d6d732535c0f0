package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/internal/folder"
)

// A session has a folder of its name, which outlives the server:
//
//	in, out        FIFOs, the supervisor's stdin and stdout, which it holds open at both
//	               ends, so that neither ends with a server
//	errors         a FIFO, its stderr: what does not fit is lost
//	session.json   its record
//	lock           held, flock(2), by the server that is connected
const (
	inFile     = "in"
	outFile    = "out"
	errorsFile = "errors"
	recordFile = "session.json"
	lockFile   = "lock"
)

// record describes a session.
type record struct {
	Session execution.SessionInfo
	Process string            // PID 1, by processName
	Groups  map[string]string // its cgroup's folders, by controller
	Version int               // of the cgroup
}

// goneTime bounds the wait for a killed session.
const goneTime = 10 * time.Second

// folder returns the folder of sessions, which must be private to this user: a record
// that another user wrote there could make this server kill any process.
func (b *Backend) folder() (string, error) {
	path := b.opts.Folder
	if path == "" {
		path = filepath.Join(os.TempDir(), "vivarium-sessions-"+strconv.Itoa(os.Geteuid()))
	}
	made, err := folder.Make(path, folder.Private)
	if fault, ok := errors.AsType[*folder.Error](err); ok {
		return "", unavailable(nil, "no session can be kept: %v; set TMPDIR to another folder", fault)
	}
	if err != nil {
		return "", unkept(err, path)
	}
	return made, nil
}

// unkept returns the error of a folder in which no session can be kept.
func unkept(err error, folder string) error {
	why := "which this server cannot write"
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return unavailable(err, tooManyFiles)
	case errors.Is(err, fs.ErrExist), errors.Is(err, unix.EWOULDBLOCK):
		return unavailable(err, "the session already exists")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		why = "where the disk is full"
	case errors.Is(err, unix.EROFS):
		why = "which is read-only"
	}
	return unavailable(err, "no session can be kept in %s, %s: set TMPDIR to another folder", folder, why)
}

// sessionFolder returns the folder of one session. It rejects ids that could be paths.
func (b *Backend) sessionFolder(id string) (string, error) {
	if !sessionID().MatchString(id) {
		return "", execution.SessionNotFound(id)
	}
	folder, err := b.folder()
	return filepath.Join(folder, id), err
}

func sessionID() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`) }

// startSession starts a sandbox that outlives this server.
func (b *Backend) startSession(ctx context.Context, spec execution.Spec, p python) (_ execution.Instance, err error) {
	folder, err := b.sessionFolder(spec.Session.ID)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, unkept(err, filepath.Dir(folder))
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(folder)
		}
	}()
	for _, name := range []string{inFile, outFile, errorsFile} {
		if err := unix.Mkfifo(filepath.Join(folder, name), 0o600); err != nil {
			return nil, unkept(err, filepath.Dir(folder))
		}
	}
	lock, err := lockSession(folder)
	if err != nil {
		return nil, unkept(err, filepath.Dir(folder))
	}
	streams, err := openStreams(folder)
	if err != nil {
		return nil, errors.Join(unkept(err, filepath.Dir(folder)), lock.Close())
	}
	made, err := b.launch(ctx, spec, p, b.begin(ctx, spec, p), streams)
	for _, stream := range streams {
		_ = stream.Close()
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	name, err := processName(made.cmd.Process.Pid)
	r := record{Session: spec.Session, Process: name, Groups: made.group.folders, Version: made.group.version}
	if err == nil {
		err = r.write(folder)
	}
	i := &sessionInstance{backend: b, folder: folder, record: r, lock: lock}
	if err == nil {
		err = i.connect()
	}
	if err != nil {
		made.end()
		return nil, errors.Join(unkept(err, filepath.Dir(folder)), lock.Close(), made.group.remove())
	}
	return i, nil
}

// openStreams opens the FIFOs for the supervisor, both ends of each.
func openStreams(folder string) (streams [3]*os.File, err error) {
	for n, name := range []string{inFile, outFile, errorsFile} {
		if streams[n], err = os.OpenFile(filepath.Join(folder, name), os.O_RDWR, 0); err != nil {
			for _, opened := range streams[:n] {
				_ = opened.Close()
			}
			return streams, err
		}
	}
	return streams, nil
}

// lockSession takes the right to be connected to a session.
func lockSession(folder string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(folder, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// write writes the record atomically.
func (r record) write(folder string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	place := filepath.Join(folder, recordFile)
	return errors.Join(os.WriteFile(place+".new", text, 0o600), os.Rename(place+".new", place))
}

// readRecord returns a session's record, and whether the session runs. It rejects what
// another user may have left there while the folder was open to others.
func readRecord(place string) (r record, runs bool, err error) {
	if err := folder.Check(place, folder.Private); err != nil {
		return r, false, err
	}
	text, err := os.ReadFile(filepath.Join(place, recordFile))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err == nil && isAlive(r.Process), err
}

// find returns the folder and the record of a session that runs.
func (b *Backend) find(id string) (folder string, r record, err error) {
	if folder, err = b.sessionFolder(id); err != nil {
		return "", r, err
	}
	r, runs, err := readRecord(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !runs:
		err = execution.SessionNotFound(id)
	case err != nil:
		err = unavailable(err, "the session's record cannot be read")
	}
	return folder, r, err
}

// Attach connects to a session.
func (b *Backend) Attach(_ context.Context, id string) (execution.Instance, error) {
	folder, r, err := b.find(id)
	if err != nil {
		return nil, err
	}
	lock, err := lockSession(folder)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, unavailable(err, "another server on this machine is connected to the session")
	}
	if err != nil {
		return nil, unavailable(err, "the session cannot be reached")
	}
	i := &sessionInstance{backend: b, folder: folder, record: r, lock: lock}
	if err := i.connect(); err != nil {
		return nil, errors.Join(unavailable(err, "the session cannot be reached"), lock.Close())
	}
	return i, nil
}

// Find returns a session of this user that runs.
func (b *Backend) Find(_ context.Context, id string) (execution.SessionInfo, error) {
	_, r, err := b.find(id)
	return r.Session, err
}

// Owned lists the running sessions of an owner.
func (b *Backend) Owned(_ context.Context, owner execution.Owner) ([]execution.SessionInfo, error) {
	found, err := b.sessions()
	return slices.DeleteFunc(found, func(s execution.SessionInfo) bool { return s.Owner != owner }), err
}

// Count counts the sessions of this user that run.
func (b *Backend) Count(_ context.Context, owner execution.Owner, except []string) (own, all int, err error) {
	found, err := b.sessions()
	own, all = execution.CountSessions(found, owner, except)
	return own, all, err
}

// sessions lists the sessions of this user that run.
func (b *Backend) sessions() ([]execution.SessionInfo, error) {
	folder, err := b.folder()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, unavailable(err, "the folder for sessions cannot be read: %s", folder)
	}
	sessions := make([]execution.SessionInfo, 0, len(entries))
	for _, entry := range entries {
		if r, runs, err := readRecord(filepath.Join(folder, entry.Name())); err == nil && runs {
			sessions = append(sessions, r.Session)
		}
	}
	return sessions, nil
}

// Announce writes a session's record again. Only the server that is connected to the
// session does.
func (b *Backend) Announce(_ context.Context, session execution.SessionInfo) error {
	folder, r, err := b.find(session.ID)
	if err != nil {
		return err
	}
	r.Session = session
	if err := r.write(folder); err != nil {
		return unavailable(err, "the session's record cannot be written")
	}
	return nil
}

// End ends a session, whichever server started it.
func (b *Backend) End(ctx context.Context, id string) error {
	if !sessionID().MatchString(id) {
		return nil
	}
	folder, err := b.sessionFolder(id)
	if err != nil {
		return err
	}
	r, _, err := readRecord(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unavailable(err, "the session's record cannot be read")
	}
	return r.end(ctx, folder)
}

// end kills a session and removes its record.
func (r record) end(ctx context.Context, folder string) error {
	ctx, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	if err := killNamed(ctx, r.Process); err != nil {
		return unavailable(err, "the session does not end")
	}
	return errors.Join(group{r.Version, r.Groups}.remove(), os.RemoveAll(folder))
}

// killNamed kills a process and waits until it is gone.
func killNamed(ctx context.Context, name string) error {
	pid, _, _ := strings.Cut(name, "-")
	number, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	handle, err := unix.PidfdOpen(number, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(handle) }()
	if !isAlive(name) { // the pid belongs to another process
		return nil
	}
	if err := unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	for {
		wait := []unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}
		if n, err := unix.Poll(wait, 100); n > 0 {
			return nil
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// sweepSessions removes records of sessions that have ended, and ends overdue ones.
func (b *Backend) sweepSessions(ctx context.Context) (int, error) {
	const grace = 30 * time.Second // by then it has ended by itself
	folder, err := b.folder()
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, err
	}
	removed := 0
	var failures []error
	for _, entry := range entries {
		place := filepath.Join(folder, entry.Name())
		r, runs, err := readRecord(place)
		switch {
		case err == nil && runs && time.Since(r.Session.Expires) < grace:
			continue
		case err == nil:
			err = r.end(ctx, place)
		case isOld(place, grace): // half made
			err = os.RemoveAll(place)
		default:
			continue
		}
		failures = append(failures, err)
		if runs {
			removed++
		}
	}
	return removed, errors.Join(failures...)
}

func isOld(path string, age time.Duration) bool {
	status, err := os.Stat(path)
	return err == nil && time.Since(status.ModTime()) > age
}
