package link

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
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
const ProgramFile = Folder + "/" + programName

// Folder is where a blank sandbox has what [WriteFolder] writes.
const Folder = "/run/vivarium"

const programName = "link.py"

// silenceOfServers is how long PID 1 waits for a server after a reset before it exits.
const silenceOfServers = 9 * time.Second

// Program returns the program of PID 1 in a blank sandbox.
func Program() string {
	return program
}

// WriteFolder writes the files of a blank sandbox that are not its image's: the program of PID 1, and hosts, which takes
// the place of /etc/hosts. There the kubelet gives the sandbox's name the address of the pod, which is not in the
// sandbox's own network. PID 1 prepares ahead what servers are going to send: it makes the zygotes of the first such
// sandbox that has any, and compiles the supervisors of all.
func WriteFolder(folder, name string, ahead ...Boot) error {
	files := map[string][]byte{
		programName: []byte(program),
		"hosts":     fmt.Appendf(nil, "127.0.0.1 localhost %s\n::1 localhost\n", name),
	}
	for i, boot := range ahead {
		files[fmt.Sprintf("%d.ahead", i)] = boot.frames()
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Line returns the command line of PID 1 in a blank sandbox that listens on a port.
func Line(port int) []string {
	return []string{"python3", "-I", ProgramFile, strconv.Itoa(port), strconv.Itoa(int(silenceOfServers.Seconds()))}
}
