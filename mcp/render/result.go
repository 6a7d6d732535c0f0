package render

import (
	"context"
	"slices"
	"strings"
	"time"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Bounds of what a result says about files.
const (
	maxListed = 100 // in the text
	maxLinks  = 20
)

// Outcome is the result of a call that ran a program.
type Outcome struct {
	Result *execution.Result
	// NewSession is the id of the session that the call started, or "".
	NewSession string
	// Save stores what does not fit into the answer.
	Save execution.Keep
}

// page is an answer in the making. Its methods append to it in the order in which
// [Renderer.Result] calls them.
type page struct {
	*Renderer
	outcome Outcome

	text     textBuilder
	saved    []execution.File // outputs that did not fit
	pictures []mcpsdk.Content
	links    []mcpsdk.Content
}

// Result renders the outcome of a call.
func (r *Renderer) Result(ctx context.Context, outcome Outcome) *mcpsdk.CallToolResult {
	p := &page{Renderer: r, outcome: outcome}
	p.addOutput(ctx)
	p.addDisplayed()
	p.addEnding()
	p.addFiles(ctx)
	p.addSkipped()
	if p.text.Len() == 0 {
		p.text.remark("The program ended without output: print what you want to see.")
	}
	if id := p.outcome.NewSession; id != "" {
		p.text.remark("This is the session %s. Pass session=%q to go on with its variables and files, for %s after each call.",
			id, id, Duration(r.opts.SessionTTL))
	}
	p.addSessionEnd(time.Now())
	content := append([]mcpsdk.Content{mcpsdk.NewTextContent(p.text.String())}, p.pictures...)
	return &mcpsdk.CallToolResult{Content: append(content, p.links...), IsError: p.outcome.Result.Failed()}
}

// addSessionEnd appends when the session ends, if calls cannot put that off any more.
func (p *page) addSessionEnd(now time.Time) {
	session := p.outcome.Result.Session
	if !session.Ending(now) {
		return
	}
	left := session.Latest.Sub(now)
	if left <= 0 {
		p.text.remark("The session ends now: it has reached its greatest age.")
		return
	}
	p.text.remark("The session ends in %s at the latest: it nears its greatest age. Save what you need.", Duration(max(left, time.Second).Truncate(time.Second)))
}

// addOutput appends what the program printed, as far as there is room.
func (p *page) addOutput(ctx context.Context) {
	stdout, outCut := p.withoutMark(p.outcome.Result.Stdout)
	stderr, errCut := p.withoutMark(p.outcome.Result.Stderr)
	room := p.opts.OutputBytes
	if execution.AccountOf(ctx).Take(cleanTimes*int64(len(stdout)+len(stderr))) != nil {
		stdout, stderr = execution.ClipTo(stdout, room), execution.ClipTo(stderr, room)
	}
	stdout, stderr = Clean(stdout), Clean(stderr)
	forErrors := min(len(stderr), max(room/3, room-len(stdout)))
	p.text.section("%s", p.fit(ctx, "stdout.txt", stdout, room-forErrors))
	p.addCut("stdout", outCut)
	if stderr != "" {
		p.text.section("[stderr]\n%s", p.fit(ctx, "stderr.txt", stderr, forErrors))
	}
	p.addCut("stderr", errCut)
}

// withoutMark removes the mark that the output limit leaves at the end of an output, and
// reports whether it was there. A program may print the same text, but then its output is
// shorter than the limit.
func (p *page) withoutMark(output string) (text string, cut bool) {
	const mark, longestRune = "\n...[truncated]", 4
	text, cut = strings.CutSuffix(output, mark)
	if !cut || len(text) <= p.opts.Limits.OutputBytes-longestRune {
		return output, false
	}
	return text, true
}

// fit returns a text that takes about room bytes. If it is shortened, the whole text is saved
// as a file.
func (p *page) fit(ctx context.Context, name, text string, room int) string {
	short, missing := cut(text, room)
	if missing == 0 {
		return text
	}
	if id, err := p.outcome.Save(ctx, name, strings.NewReader(text)); err == nil {
		p.saved = append(p.saved, execution.File{Path: name, Size: int64(len(text)), ID: id})
	}
	return short
}

func (p *page) addCut(stream string, cut bool) {
	if cut {
		p.text.remark("%s beyond %s bytes was dropped: print less, or write it to a file.", stream, Grouped(int64(p.opts.Limits.OutputBytes)))
	}
}

// addFiles appends the files: pictures are shown as far as there is room, others linked.
func (p *page) addFiles(ctx context.Context) {
	files := slices.Concat(p.saved, p.outcome.Result.Files)
	gallery, left := p.newGallery(), 0
	for _, file := range files {
		if mayBePicture(file.Path) {
			left++
		}
	}
	for i, file := range files {
		note := ""
		if mayBePicture(file.Path) {
			note = ", " + p.addPicture(ctx, gallery, file, gallery.bytes/left)
			left--
		}
		if note != ", "+shown && len(p.links) < maxLinks {
			p.links = append(p.links, p.link(ctx, file))
		}
		switch {
		case i < maxListed:
			p.text.remark("file: %s, %s bytes, file_id %s%s", Clean(file.Path), Grouped(file.Size), file.ID, note)
		case i == maxListed:
			p.text.remark("and %d more files", len(files)-maxListed)
		}
	}
}

const shown = "shown below"

// addPicture appends a picture that takes at most share bytes. It returns how the picture is
// shown, or why it is not.
func (p *page) addPicture(ctx context.Context, g *gallery, file execution.File, share int) (note string) {
	account, cost := execution.AccountOf(ctx), loadTimes*min(file.Size, maxPictureBytes)
	if err := account.Take(cost); err != nil {
		return "not shown: " + execution.AsError(err).Message
	}
	defer account.Give(cost)
	data, err := p.load(ctx, file)
	if err != nil {
		return "not shown: " + execution.AsError(err).Message
	}
	picture, smaller, err := g.add(ctx, Clean(file.Path), data, share)
	if err != nil {
		return "not shown: " + err.Error()
	}
	p.pictures = append(p.pictures, picture)
	if smaller {
		return shown + ", reduced in size"
	}
	return shown
}

// addSkipped appends the files that were not returned, one line for each reason.
func (p *page) addSkipped() {
	const named = 3
	var reasons []string
	paths := make(map[string][]string)
	for _, file := range p.outcome.Result.Skipped {
		if _, known := paths[file.Reason]; !known {
			reasons = append(reasons, file.Reason)
		}
		paths[file.Reason] = append(paths[file.Reason], Clean(file.Path))
	}
	for _, reason := range reasons {
		all := paths[reason]
		names := strings.Join(all[:min(len(all), named)], ", ")
		switch n := len(all); {
		case names == "":
			p.text.remark("files not returned: %s", reason)
		case n == 1:
			p.text.remark("file not returned: %s: %s", names, reason)
		case n <= named:
			p.text.remark("%d files not returned: %s: %s", n, names, reason)
		default:
			p.text.remark("%s files not returned: %s and %s more: %s", Grouped(int64(n)), names, Grouped(int64(n-named)), reason)
		}
	}
}
