package integration

import (
	"fmt"
	"io/fs"
	"syscall"
)

// groupOf gives the group that owns a file.
func groupOf(info fs.FileInfo) string {
	if status, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(status.Gid)
	}
	return "0"
}
