package execution

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of a file's path, as Linux has them (linux/limits.h).
const (
	maxNameBytes = 255
	maxPathBytes = 1024
	maxPathDepth = 32
)

// pathFaults returns the faults of the paths of files: of each one alone, and of
// those that cannot exist beside each other.
func pathFaults(files []Input) []FieldError {
	var faults []FieldError
	names := make(map[string]bool, len(files))   // paths of files
	folders := make(map[string]bool, len(files)) // folders that they need
	for i, file := range files {
		message := PathFault(file.Path)
		switch {
		case message != "":
		case file.Path == MainFile:
			message = "is reserved for the program itself"
		case names[file.Path]:
			message = "is given twice"
		case folders[file.Path]:
			message = "is a folder of another file"
		}
		for dir := path.Dir(file.Path); message == "" && dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
			if names[dir] || dir == MainFile {
				message = fmt.Sprintf("needs the folder %q, which is a file", Clip(dir))
			}
		}
		names[file.Path] = true
		if message != "" {
			faults = append(faults, FieldError{Field: FieldFiles, Index: i, Fault: outsideFault(file.Path), Message: message, Value: file.Path})
		}
	}
	return faults
}

// outsideFault returns the kind of the fault of a path. A path that could lead out of the
// workspace has a kind of its own, whatever else is wrong with it.
func outsideFault(p string) Fault {
	switch {
	case strings.HasPrefix(p, "/"):
		return FaultAbsolute
	case slices.Contains(strings.Split(p, "/"), ".."):
		return FaultParent
	}
	return FaultValue
}

// PathFault returns why a path cannot name a file in a workspace, or "" when it can.
// A path must be relative, in its shortest form, valid UTF-8 and without NUL.
func PathFault(p string) string {
	switch {
	case p == "":
		return "must not be empty"
	case strings.ContainsRune(p, 0):
		return "must not contain NUL"
	case !utf8.ValidString(p):
		return "must be valid UTF-8"
	case strings.HasPrefix(p, "/"):
		return "must be relative to the workspace, not absolute"
	case len(p) > maxPathBytes:
		return fmt.Sprintf("must have at most %d bytes", maxPathBytes)
	case strings.Count(p, "/") >= maxPathDepth:
		return fmt.Sprintf("must have at most %d parts", maxPathDepth)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "..":
			return `must not contain ".."`
		case part == "" || part == ".":
			return `must not contain empty or "." parts`
		case len(part) > maxNameBytes:
			return fmt.Sprintf("must have parts of at most %d bytes", maxNameBytes)
		}
	}
	return ""
}
