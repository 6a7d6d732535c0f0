package mcp

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/mcp/render"
)

// Prepared must be called when sandboxes are available, or with the reason why they are not
// yet, as often as that changes. It collects the facts for the tools' descriptions. With
// [Options.AwaitPrepared], the first list of tools waits a moment for it.
func (s *Server) Prepared(ctx context.Context, err error) {
	defer s.settle()
	if err != nil {
		return
	}
	found, err := s.findFacts(ctx)
	if err != nil {
		s.opts.Log.WarnContext(ctx, "listing the sandbox's Python packages failed; the tools are described without them", "error", err)
		return
	}
	s.facts.Store(found)
	if s.listed.Swap(false) { // without the facts
		s.server.SendNotificationToAllClients("notifications/tools/list_changed", nil)
	}
}

func (s *Server) findFacts(ctx context.Context) (*facts, error) {
	result, err := s.opts.Executor.Execute(ctx, execution.Request{
		Code: inventory, Timeout: min(inventoryTime, s.opts.Limits.MaxTimeout),
	})
	if err != nil {
		return nil, err
	}
	return parseInventory(result)
}

// descriptionBytes bounds a description. Some clients cut longer ones.
const descriptionBytes = 1000

// describePython returns the description of execute_python, the most important facts first. The list of
// packages has what the others leave.
func (s *Server) describePython() string {
	limits := s.opts.Limits
	use := "Runs a Python program in " + s.describeSandbox() + " and returns its output. Print what you want to see; the last line's value is shown too."
	rest := strings.Join([]string{
		describeNetwork(s.opts.Settings.Network),
		fmt.Sprintf("Each call starts afresh. session=\"new\" keeps variables and files for %s: pass the name that the answer contains in later calls.",
			render.Duration(s.opts.SessionTTL)),
		fmt.Sprintf("Only files in /workspace, the working directory, are returned, at most %d of %d MB in all, with a file_id for later calls, for %s. "+
			"Pictures and open figures are shown: call plt.close() after savefig.",
			limits.ResultFiles, limits.ResultBytes>>20, render.Duration(s.opts.FileTTL)),
		s.describeLimits(),
	}, "\n")
	room := descriptionBytes - len(use) - len(rest) - len("\n\n")
	return use + "\n" + s.facts.Load().describe(room) + "\n" + rest
}

func (s *Server) describeLimits() string {
	limits, settings := s.opts.Limits, s.opts.Settings
	return fmt.Sprintf("Limits: timeout_ms at most %d (%d if not given),%s %d MB of memory, %d MB of files, %s bytes of output.",
		limits.MaxTimeout.Milliseconds(), s.defaultTimeout().Milliseconds(), describeCPUTime(limits.CPUTime),
		settings.MemoryBytes>>20, settings.WorkspaceBytes>>20, render.Grouped(int64(s.opts.OutputBytes)))
}

// describeCPUTime returns the limit on a program's CPU time, or "" if it follows timeout_ms.
func describeCPUTime(limit time.Duration) string {
	if limit == 0 {
		return ""
	}
	return fmt.Sprintf(" %d s of CPU time,", limit/time.Second)
}

// describeSandbox returns where programs run, in a few words.
func (s *Server) describeSandbox() string {
	backend := ""
	if s.opts.Backend != nil {
		backend = s.opts.Backend()
	}
	switch backend {
	case "docker":
		return "an isolated sandbox, a container,"
	case "kubernetes":
		return "an isolated sandbox, a pod of a cluster,"
	case "local":
		return "an isolated sandbox on the server's machine, with its Python,"
	}
	return "an isolated sandbox"
}

// describeBash returns the description of run_bash.
func (s *Server) describeBash() string {
	return strings.Join([]string{
		"Runs a command with bash in a session's sandbox, in its working directory, /workspace. Files and background processes persist between calls; shell variables and the current folder do not.",
		describeNetwork(s.opts.Settings.Network),
		fmt.Sprintf("Limits: timeout_ms at most %d (%d if not given); CPU time of each process, memory and files as for execute_python.",
			s.opts.Limits.MaxTimeout.Milliseconds(), s.defaultTimeout().Milliseconds()),
	}, "\n")
}

func describeNetwork(network string) string {
	if network == "none" {
		return "There is no network: nothing can be downloaded or installed."
	}
	return "There is a network."
}
