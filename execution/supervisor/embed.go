package supervisor

import (
	"bytes"
	"compress/zlib"
	"embed"
	"encoding/base64"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/vivarium-sandbox/vivarium/execution"
)

//go:embed shared/*.py program/*.py zygote/*.py pid1/*.py session/*.py
var moduleFiles embed.FS

//go:embed compiled.py
var compiledSource string

//go:embed bootstrap.py
var bootstrapSource string

//go:embed compile.py
var compileSource string

//go:embed start.py
var startSource string

//go:embed load.py
var loadSource string

// serveSource follows loadSource and starts the supervisor.
const serveSource = "main(last.serve)\n"

// modulesOf returns the modules that a sandbox needs, in the order in which they are loaded:
// each after those that it imports. The last one defines serve.
func modulesOf(isolation execution.Isolation) []string {
	all := strings.Fields(`
		shared/kernel shared/handover
		program/tracebacks program/hooks program/gallery program/libraries program/display program/magics program/compiling
		program/capture program/timing program/shell program/ipython program/loops program/ending program/environment program/program
		pid1/channel pid1/workspace pid1/tempfiles pid1/cleanup pid1/network pid1/memory pid1/watches pid1/process pid1/run pid1/results
		pid1/sandbox pid1/main`)
	switch isolation {
	case execution.IsolationRun:
		return append(all, "zygote/forking", "zygote/rehearsal", "zygote/zygote", "pid1/forecast", "pid1/inner_sandbox", "pid1/zygotes", "pid1/serve_many")
	case execution.IsolationSession:
		return append(all, strings.Fields(`
			program/child program/cells program/outputs program/notebook
			session/session_channel session/session_processes session/session_calls session/staging
			session/session_files session/session`)...)
	default:
		return append(all, "pid1/serve_one")
	}
}

// fileName returns the file that a module names in warnings. Python attributes a warning to the
// caller of a function, or to the caller's caller. Beyond the program itself plain Python says
// "<sys>". It skips frames of the import system, which is how a frame of ours that the program
// calls does not get the program's warning.
func fileName(module string) string {
	group, name := path.Split(module)
	switch {
	case module == "program/display", module == "program/hooks", module == "program/shell", module == "program/timing",
		module == "program/ipython", module == "program/capture", module == "program/gallery", module == "program/libraries":
		return "<importlib._bootstrap " + name + ">"
	case group == "program/", group == "zygote/":
		return "<sys>"
	default:
		return "<supervisor " + name + ">"
	}
}

// later are the names of the modules that are loaded when something of them is used. Modules
// import them as a whole ("import shell").
const later = "gallery libraries magics capture timing shell ipython loops session_files"

// sources returns later, and the name, the file name and the source of each module that a
// sandbox needs, in the order of modulesOf. compiled.py reads them.
func sources(isolation execution.Isolation) ([]string, error) {
	all := []string{later}
	for _, file := range modulesOf(isolation) {
		source, err := moduleFiles.ReadFile(file + ".py")
		if err != nil {
			return nil, err
		}
		all = append(all, path.Base(file), fileName(file), string(source))
	}
	return all, nil
}

// longest is the greatest length of an argument that pack returns. Linux limits each argument
// to 128 KB (MAX_ARG_STRLEN).
const longest = 1 << 16

// pack returns texts as few arguments: joined by zero bytes, compressed, and in base64. Python
// keeps several copies of its arguments, of four bytes for each character, as long as it runs:
// without the compression an idle sandbox takes 1.2 MB more. A better compression takes longer
// than it saves.
func pack(texts []string) []string {
	var compressed bytes.Buffer
	w, _ := zlib.NewWriterLevel(&compressed, zlib.BestSpeed) // a level that exists
	_, _ = io.WriteString(w, strings.Join(texts, "\x00"))    // a bytes.Buffer takes everything
	_ = w.Close()
	var arguments []string
	for part := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(compressed.Bytes())), longest) {
		arguments = append(arguments, string(part))
	}
	return arguments
}
