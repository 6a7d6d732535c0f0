package link

import (
	_ "embed"
	"strconv"
	"time"
)

// source is the program of PID 1 in a blank sandbox.
//
//go:embed link.py
var source string

// Port is where PID 1 of a sandbox listens.
const Port = 7443

// silenceOfServers is how long PID 1 waits for a server after a reset before it exits.
const silenceOfServers = 9 * time.Second

// Line returns the command line of PID 1 in a blank sandbox that listens on a port.
func Line(port int) []string {
	return []string{"python3", "-I", "-c", source, strconv.Itoa(port), strconv.Itoa(int(silenceOfServers.Seconds()))}
}
