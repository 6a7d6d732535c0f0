package mcp

import (
	"context"
	"io"
	"strings"

	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// Bounds of how a result tells of files.
const (
	maxListed = 100 // in words
	maxLinks  = 20
)

// How many copies there are of some values at once, for which requests are charged.
const (
	answerTimes = 4 // of what an answer has: as content, in JSON, and on its way
	loadTimes   = 2 // of a file that is read: it grows as it comes
	cleanTimes  = 4 // of an output that is cleaned
	textTimes   = 8 // of a text that is shown, of which some characters are escaped
)

// presentation is a result in the making: text first, and complete, since it is
// what every model reads; then pictures and links to other files.
type presentation struct {
	text     textBuilder
	pictures []mcpsdk.Content
	links    []mcpsdk.Content
}

// present makes what a model gets of a result.
func (s *Server) present(ctx context.Context, r *run, result *execution.Result, begun *execution.SessionInfo) *mcpsdk.CallToolResult {
	var p presentation
	saved := s.output(ctx, &p, r, result)
	if ending := s.ending(result); ending != "" {
		p.text.remark("%s", ending)
	}
	s.files(ctx, &p, append(saved, result.Files...))
	p.skipped(result.Skipped)
	if p.text.text.Len() == 0 {
		p.text.remark("The program ended without output: print what you want to see.")
	}
	if begun != nil {
		p.text.remark("This is the session %s. Pass session=%q to go on with its variables and files, for %s.",
			begun.ID, begun.ID, words(s.opts.SessionTTL))
	}
	content := append([]mcpsdk.Content{mcpsdk.NewTextContent(p.text.text.String())}, p.pictures...)
	return &mcpsdk.CallToolResult{Content: append(content, p.links...), IsError: result.Failed()}
}

// output writes what the program printed, as far as there is room. What does not
// fit is saved as files, which it gives.
func (s *Server) output(ctx context.Context, p *presentation, r *run, result *execution.Result) (saved []execution.File) {
	stdout, outCut := s.withoutMark(result.Stdout)
	stderr, errCut := s.withoutMark(result.Stderr)
	if execution.AccountOf(ctx).Take(cleanTimes*int64(len(stdout)+len(stderr))) != nil {
		stdout, stderr = execution.ClipTo(stdout, s.opts.OutputBytes), execution.ClipTo(stderr, s.opts.OutputBytes)
	}
	stdout, stderr = clean(stdout), clean(stderr)
	room := s.opts.OutputBytes
	forErrors := min(len(stderr), max(room/3, room-len(stdout)))
	show := func(name, text string, room int) string {
		short, missing := cut(text, room)
		if missing == 0 {
			return text
		}
		if file, err := save(ctx, r, name, text); err == nil {
			saved = append(saved, file)
		}
		return short
	}
	p.text.section("%s", show("stdout.txt", stdout, room-forErrors))
	s.remarkCut(p, "stdout", outCut)
	if stderr != "" {
		p.text.section("[stderr]\n%s", show("stderr.txt", stderr, forErrors))
	}
	s.remarkCut(p, "stderr", errCut)
	return saved
}

// withoutMark takes the mark off the end of an output that the run's limit has
// cut. A program may print the same.
func (s *Server) withoutMark(output string) (text string, cut bool) {
	const mark, longestRune = "\n...[truncated]", 4
	text, cut = strings.CutSuffix(output, mark)
	if !cut || len(text) <= s.opts.Limits.OutputBytes-longestRune {
		return output, false
	}
	return text, true
}

func (s *Server) remarkCut(p *presentation, stream string, cut bool) {
	if cut {
		p.text.remark("What %s had beyond %s bytes was not kept: print less, or write it to a file.",
			stream, grouped(int64(s.opts.Limits.OutputBytes)))
	}
}

// skipped tells of files that were not returned: a line for each reason.
func (p *presentation) skipped(files []execution.SkippedFile) {
	const named = 3
	var reasons []string
	paths := make(map[string][]string)
	for _, file := range files {
		if _, known := paths[file.Reason]; !known {
			reasons = append(reasons, file.Reason)
		}
		paths[file.Reason] = append(paths[file.Reason], clean(file.Path))
	}
	for _, reason := range reasons {
		those := paths[reason]
		names := strings.Join(those[:min(len(those), named)], ", ")
		switch n := len(those); {
		case names == "":
			p.text.remark("files not returned: %s", reason)
		case n == 1:
			p.text.remark("file not returned: %s: %s", names, reason)
		case n <= named:
			p.text.remark("%d files not returned: %s: %s", n, names, reason)
		default:
			p.text.remark("%s files not returned: %s and %s more: %s", grouped(int64(n)), names, grouped(int64(n-named)), reason)
		}
	}
}

// save stores a text as a file of the run's.
func save(ctx context.Context, r *run, name, text string) (execution.File, error) {
	id, err := r.exchange.Keep(ctx, name, strings.NewReader(text))
	return execution.File{Path: name, Size: int64(len(text)), ID: id}, err
}

// files tells of files: pictures are shown within the budget, others linked to.
func (s *Server) files(ctx context.Context, p *presentation, files []execution.File) {
	pictures, left := s.newGallery(), 0
	for _, file := range files {
		if mayBePicture(file.Path) {
			left++
		}
	}
	for i, file := range files {
		how := ""
		if mayBePicture(file.Path) {
			shown, note := s.showPicture(ctx, pictures, file, pictures.bytes/left)
			left--
			how = ", " + note
			if shown.Data != "" {
				p.pictures = append(p.pictures, shown)
			}
		}
		if how != shownBelow && len(p.links) < maxLinks {
			p.links = append(p.links, link(ctx, file))
		}
		switch {
		case i < maxListed:
			p.text.remark("file: %s, %s bytes, file_id %s%s", clean(file.Path), grouped(file.Size), file.ID, how)
		case i == maxListed:
			p.text.remark("and %d more files", len(files)-maxListed)
		}
	}
}

const shownBelow = ", shown below"

// showPicture gives a picture of at most share bytes, and how it is shown, or why
// not.
func (s *Server) showPicture(ctx context.Context, g *gallery, file execution.File, share int) (_ mcpsdk.ImageContent, note string) {
	account := execution.AccountOf(ctx)
	if err := account.Take(loadTimes * min(file.Size, maxPictureBytes)); err != nil {
		return mcpsdk.ImageContent{}, "not shown: " + execution.AsError(err).Message
	}
	defer account.Give(loadTimes * min(file.Size, maxPictureBytes))
	data, err := s.load(ctx, file)
	if err != nil {
		return mcpsdk.ImageContent{}, "not shown: " + execution.AsError(err).Message
	}
	shown, smaller, err := g.add(ctx, clean(file.Path), data, share)
	switch {
	case err != nil:
		return mcpsdk.ImageContent{}, "not shown: " + err.Error()
	case smaller:
		return shown, "shown below, smaller than it is"
	}
	return shown, "shown below"
}

// load reads a stored file that may be a picture.
func (s *Server) load(ctx context.Context, file execution.File) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, &execution.Error{Code: execution.Cancelled, Message: "the client has left"}
	}
	if file.Size > maxPictureBytes {
		return nil, invalid("it is too large")
	}
	stored, err := s.opts.Files.Get(ctx, file.ID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stored.Close() }() // it was read
	return io.ReadAll(stored)
}
