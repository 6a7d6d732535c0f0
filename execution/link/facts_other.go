//go:build !linux

package link

import (
	"errors"
	"fmt"
	"runtime"
)

// FindFacts fails: the nodes of sandboxes have Linux.
func FindFacts() (Facts, error) {
	return Facts{}, fmt.Errorf("this system is %s, and pods need Linux: %w", runtime.GOOS, errors.ErrUnsupported)
}
