package link

import (
	_ "embed"
	"strconv"
	"time"
)

// program is the program of PID 1 in a blank sandbox.
//
//go:embed link.py
var program string

// Port is where PID 1 of a sandbox listens.
const Port = 7443

// ProgramFile is where a blank sandbox has the program of PID 1: where no program can write, because a container that
// is restarted executes it again.
const ProgramFile = "/run/vivarium/link.py"

// silenceOfServers is how long PID 1 waits for a server after a reset before it exits.
const silenceOfServers = 9 * time.Second

// Program returns the program of PID 1 in a blank sandbox.
func Program() string {
	return program
}

// Line returns the command line of PID 1 in a blank sandbox that listens on a port.
func Line(port int) []string {
	return []string{"python3", "-I", ProgramFile, strconv.Itoa(port), strconv.Itoa(int(silenceOfServers.Seconds()))}
}
