package render

import (
	mcpsdk "github.com/mark3labs/mcp-go/mcp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

// maxUnlisted is how many entries that cannot be listed a list names.
const maxUnlisted = 20

// Listing renders a list of a session's files, one on a line.
func (r *Renderer) Listing(listing execution.Listing) *mcpsdk.CallToolResult {
	var text textBuilder
	for _, entry := range listing.Entries {
		switch path := Clean(entry.Path); entry.Kind {
		case execution.KindFolder:
			text.section("%s/\n", path)
		case execution.KindFile:
			text.section("%s  %s bytes\n", path, Grouped(entry.Size))
		case execution.KindLink:
			text.section("%s  (link)\n", path)
		case execution.KindOther:
			text.section("%s  (not a regular file)\n", path)
		}
	}
	short, missing := cut(text.String(), r.opts.OutputBytes)
	var out textBuilder
	out.section("%s", short)
	for i, skipped := range listing.Skipped {
		if skipped.Path != "" && i < maxUnlisted {
			out.remark("%s is not listed: %s.", Clean(skipped.Path), Clean(skipped.Reason))
		}
	}
	switch {
	case listing.Cut() || missing > 0:
		out.remark("There are more: list one folder, or search with find in run_bash.")
	case out.Len() == 0:
		out.remark("There are no files.")
	}
	return mcpsdk.NewToolResultText(out.String())
}
