//go:build !linux

package link

import "syscall"

// boundSilence does nothing: only Linux has such a bound for a connection.
func boundSilence(string, string, syscall.RawConn) error { return nil }
