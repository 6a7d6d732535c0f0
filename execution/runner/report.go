package runner

import (
	"context"
	"errors"
	"fmt"
	pathpkg "path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// report collects what the supervisor reports of a task. It trusts none of it: see the
// package comment.
type report struct {
	limits   execution.Limits
	account  *execution.Account // of the request
	timeout  time.Duration
	listener execution.Output // may be nil
	sent     time.Time        // when the sending of the job began
	started  time.Time
	stdout   output
	stderr   output
	displays displays
	files    []execution.File
	file     *execution.File       // that comes in; nil when none does
	entry    func(execution.Entry) // receives descriptions of files; may be nil
	entries  int                   // how many have come
	keeps    bool                  // Keep receives the contents
	taken    map[string]bool       // paths of files, and of the folders that they lie in
	skipped  []execution.SkippedFile
	begun    int   // how many files have begun to come in
	listed   int   // how many skipped files the supervisor has named
	skipSize int   // bytes of their paths and reasons
	unpaid   int   // bytes of output for which the account is not charged yet
	fileSize int64 // of all files so far
	facts    facts
	failure  string // why the report is not whole
	starved  bool   // some output was dropped because there was no memory for it
	ended    bool   // the program has ended: no more output, files may follow
	complete bool
}

func newReport(ctx context.Context, t *task) *report {
	now := time.Now()
	return &report{
		limits: t.limits, account: execution.AccountOf(ctx), timeout: t.timeout, listener: t.output,
		sent: now, started: now, keeps: t.keep != nil, entry: t.entry, taken: make(map[string]bool),
		stdout: output{limit: t.limits.OutputBytes}, stderr: output{limit: t.limits.OutputBytes},
		displays: displays{room: t.limits.OutputBytes},
	}
}

// take takes in one frame.
func (r *report) take(f frame) error {
	switch {
	case f.kind == kindStdout && !r.ended:
		r.add(&r.stdout, f.payload)
		r.notify(execution.Stdout, &r.stdout)
	case f.kind == kindStderr && !r.ended:
		r.add(&r.stderr, f.payload)
		r.notify(execution.Stderr, &r.stderr)
	case f.kind == kindEnded && !r.ended:
		if err := r.facts.parse(f.payload); err != nil {
			return err
		}
		r.facts.clamp(time.Since(r.sent), r.limits)
		r.facts.reconcile(r.limits)
		r.ended = true
	case f.kind == kindData && r.file != nil:
		return r.addData(f.payload)
	case f.kind == kindData && r.displays.open:
		return r.displays.add(f.payload, r.account)
	case f.kind == kindForm && r.ended && r.begun == 0:
		return r.displays.begin(f.payload)
	case f.kind == kindTorn && r.file != nil:
		r.skipFile(shown(string(f.payload), maxReason))
	case f.kind == kindFile && r.ended:
		r.endFile()
		return r.beginFile(string(f.payload))
	case f.kind == kindSkipped && r.ended:
		r.endFile()
		return r.addSkipped(f.payload)
	case f.kind == kindEntry && r.ended:
		r.endFile()
		return r.takeEntry(string(f.payload))
	case f.kind == kindDone && r.ended:
		r.endFile()
		r.complete = true
	default:
		return fmt.Errorf("%w: frame %q out of turn", errFrame, f.kind)
	}
	return nil
}

const (
	// outputTimes is how many copies there are of an output: as it came, with room
	// to grow, as text, and in a stream also until its client has read it.
	outputTimes = 4
	// freeOutput is what a request is charged for anyway.
	freeOutput = 8 << 10
)

// add takes in some output, and charges the account for it. Where there is no memory
// for it, the output ends here: the program has run, which cannot be undone.
func (r *report) add(o *output, data []byte) {
	r.unpaid += min(len(data), max(0, o.limit-len(o.data)))
	if r.unpaid > freeOutput {
		if r.account.Take(int64(outputTimes*r.unpaid)) != nil {
			o.limit, r.starved = len(o.data), true
		}
		r.unpaid = 0
	}
	o.add(data)
}

// notify passes what is new in an output to the listener.
func (r *report) notify(stream execution.Stream, o *output) {
	if r.listener == nil {
		return
	}
	if text := o.news(); text != "" {
		r.listener(stream, text)
	}
}

// beginFile notes that a file comes in.
func (r *report) beginFile(path string) error {
	if r.begun >= r.limits.ResultFiles {
		return fmt.Errorf("%w: more than %d files", errFrame, r.limits.ResultFiles)
	}
	if fault := execution.PathFault(path); fault != "" {
		return fmt.Errorf("%w: a path that %s", errFrame, fault)
	}
	if r.taken[path] {
		return fmt.Errorf("%w: the path %.100q for a second time", errFrame, path)
	}
	for folder := path; folder != "."; folder = pathpkg.Dir(folder) {
		r.taken[folder] = true
	}
	r.begun++
	r.displays.open = false
	r.file = &execution.File{Path: path}
	if !r.keeps {
		r.file.Content = []byte{}
	}
	return nil
}

// addData takes in some of the file that comes in. An empty piece is refused:
// there would be no end to them.
func (r *report) addData(data []byte) error {
	size := int64(len(data))
	r.fileSize += size
	r.file.Size += size
	if size == 0 || r.fileSize > r.limits.ResultBytes || r.file.Size > r.limits.ResultFileBytes {
		return fmt.Errorf("%w: files larger than allowed, or an empty piece of one", errFrame)
	}
	if !r.keeps {
		if err := r.account.Take(2 * size); err != nil { // it grows by as much as it has
			return err
		}
		r.file.Content = append(r.file.Content, data...)
	}
	return nil
}

// endFile notes that the file that came in, if one did, is whole.
func (r *report) endFile() {
	if r.file != nil {
		r.files = append(r.files, *r.file)
		r.file = nil
	}
}

const (
	// maxShownPath and maxReason bound the path and the reason of a skipped file, in
	// bytes. Escaped, they are up to four times as long.
	maxShownPath = 1000
	maxReason    = 250
	// maxTempListed is how many entries there may be for what is in /tmp.
	maxTempListed = 21
	// maxSkipSize bounds the paths and reasons of all skipped files of a run.
	maxSkipSize = 1 << 20
)

// skipFile skips the file that comes in.
func (r *report) skipFile(reason string) {
	r.skip(r.file.Path, reason)
	r.file = nil
}

func (r *report) addSkipped(payload []byte) error {
	path, reason, _ := strings.Cut(string(payload), "\x00")
	if r.listed++; r.listed > r.limits.ResultFiles+1+maxTempListed {
		return fmt.Errorf("%w: too many skipped files", errFrame)
	}
	r.skip(path, shown(reason, maxReason))
	return nil
}

// skip lists a file that is not returned, if there is room for it: else the list ends
// with how it does.
func (r *report) skip(path, reason string) {
	if r.skipSize > maxSkipSize {
		return
	}
	one := execution.SkippedFile{Path: shown(path, maxShownPath), Reason: reason}
	if r.skipSize += len(one.Path) + len(one.Reason); r.skipSize > maxSkipSize {
		one = execution.SkippedFile{Reason: "more files were not returned: their names are too long to list them"}
	}
	r.skipped = append(r.skipped, one)
}

// fail notes that the report ends here. If the sandbox has ended under the program, lost is
// what is known of that.
func (r *report) fail(err error, lost loss) {
	if r.file != nil {
		r.skipFile("it did not arrive whole")
	}
	switch {
	case r.ended:
		r.failure = "not all files could be fetched: " + err.Error()
	case errors.Is(err, errLate), errors.Is(err, errSilent) && time.Since(r.started) >= r.timeout:
		r.ended = true
		r.facts = facts{timedOut: true, wall: r.timeout}
		r.failure = "the sandbox did not report back and was destroyed; the run's files are lost"
	case errors.Is(err, errSilent):
		r.facts = facts{lost: true, wall: time.Since(r.started)}
		r.failure = "the sandbox did not answer any more and was destroyed; the run's files are lost"
	default:
		r.facts = facts{lost: true, lostToMemory: lost.memory, wall: time.Since(r.started)}
		r.failure = lost.after("the sandbox ended before the program did, with its files", "out of memory, or the engine stopped")
	}
}

// odd reports whether the sandbox must serve no further run.
func (r *report) odd() bool {
	return r.failure != "" || r.facts.lost || r.facts.timedOut || r.facts.memoryKills > 0 || r.facts.refusedProcesses > 0
}

func (r *report) result() *execution.Result {
	result := &execution.Result{
		Stdout:    r.stdout.text(),
		Stderr:    r.stderr.text(),
		End:       r.facts.end(r.timeout, r.limits),
		Started:   r.started,
		Duration:  r.facts.wall,
		Usage:     r.facts.usage,
		Displayed: r.displays.values,
		Files:     r.files,
		Skipped:   r.skipped,
	}
	if r.failure != "" {
		result.End.Message = strings.TrimPrefix(result.End.Message+"; "+r.failure, "; ")
	}
	if r.starved {
		result.End.Message = strings.TrimPrefix(result.End.Message+"; "+outputStarved, "; ")
	}
	if code := r.facts.exitCode; !result.TimedOut() {
		if r.facts.lost {
			code = lostExitCode
		}
		result.ExitCode = &code
	}
	return result
}

const outputStarved = "output was cut: the requests under way hold the memory that there is for them (MAX_IN_FLIGHT_MB)"

// shown returns the beginning of a text from a sandbox, harmless to show.
func shown(text string, most int) string { return printable(execution.ClipTo(text, most)) }

// printable makes text from a sandbox harmless to show: it escapes what is not UTF-8
// and what controls a terminal.
func printable(text string) string {
	var b strings.Builder
	for i, char := range text {
		switch {
		case char == utf8.RuneError && text[i] != 0xEF:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case char < 0x20 || 0x7F <= char && char < 0xA0:
			fmt.Fprintf(&b, `\x%02x`, char)
		default:
			b.WriteRune(char)
		}
	}
	return b.String()
}
