package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vivarium-sandbox/vivarium/config"
	"github.com/vivarium-sandbox/vivarium/execution"
	"github.com/vivarium-sandbox/vivarium/execution/blank"
	"github.com/vivarium-sandbox/vivarium/execution/hardening"
	"github.com/vivarium-sandbox/vivarium/execution/link"
	"github.com/vivarium-sandbox/vivarium/execution/seccomp"
)

// profileName is the file of the seccomp profile, below the folder of kubelets' profiles.
const profileName = "sandbox.json"

func kubernetesCommand(system System) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubernetes",
		Short: "Prepare pods, nodes and certificates for sandboxes on Kubernetes",
		Long:  "Prepare pods, nodes and certificates for sandboxes on Kubernetes. The chart runs these commands.",
		Example: `  vivarium kubernetes certs --secret vivarium-link | kubectl apply -f -
  vivarium kubernetes seccomp > sandbox.json`,
	}
	cmd.AddCommand(podInitCommand(system), filesInitCommand(), certsCommand(system), seccompCommand(system))
	return cmd
}

func podInitCommand(system System) *cobra.Command {
	var message string
	cmd := &cobra.Command{
		Use:   "pod-init KEY FOLDER",
		Short: "Make the key of a sandbox's pod, as the pod's first container",
		Long: `Make a key for a sandbox's pod and write it, with its certificate, to the new file
KEY. Write what the sandbox's container executes, and its /etc/hosts, into FOLDER.
That prepares what servers with the same settings ask for: ISOLATION, MEMORY_LIMIT_MB,
PIDS_LIMIT, PRELOAD_MODULES, PTY_LIMIT and PYTHON_EXECUTOR_DOCKER_NETWORK. What servers
must know, the key's pin and facts about the node, becomes the container's termination
message, which Kubernetes shows in the pod's status.`,
		Example: "  vivarium kubernetes pod-init /workspace/.vivarium-link " + link.Folder,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := settings(cmd.Context(), system)
			if err == nil {
				c, err = c.ForMachine(config.Machine{}) // as newCluster does
			}
			if err != nil {
				return err
			}
			return initPod(args[0], args[1], message, sandboxSettings(c))
		},
	}
	cmd.Flags().StringVar(&message, "message", "/dev/termination-log", "file of the termination message")
	return cmd
}

// initPod writes the files and the identity of a pod and reports its facts. If it fails, it
// leaves no identity, so that it can be repeated.
func initPod(key, folder, message string, settings execution.Settings) error {
	facts, err := link.FindFacts()
	if err != nil {
		return err
	}
	maker, err := blank.NewMaker()
	if err != nil {
		return err
	}
	ahead, err := maker.Ahead(settings, facts)
	if err != nil {
		return err
	}
	if err := link.WriteFolder(folder, hardening.Hostname, ahead...); err != nil {
		return fmt.Errorf("the pod's files: %w", err)
	}
	if facts.Key, err = link.WriteIdentity(key); err != nil {
		return fmt.Errorf("the pod's key: %w", err)
	}
	text, err := json.Marshal(facts)
	if err == nil {
		err = os.WriteFile(message, text, 0o600)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("--message: %w", err), os.Remove(key))
	}
	return nil
}

func filesInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "files-init FOLDER",
		Short: "Make the folder for stored files, as the first container of a server's pod",
		Long: `Make a folder that only this user can write, unless it is there. Everyone can write
the root of a volume that Kubernetes makes. A server keeps files only where no other
user can put any.`,
		Example: "  vivarium kubernetes files-init /volume/files",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.Mkdir(args[0], 0o700); !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		},
	}
}

func seccompCommand(system System) *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:   "seccomp",
		Short: "Print the seccomp profile of sandboxes, or install it on a node",
		Long: `Print the seccomp profile of sandboxes, which suits nodes with amd64 and arm64. Pods
name it as a Localhost profile. With --install, write it to a folder of the node
and wait for a signal to end, as a container of a DaemonSet.`,
		Example: `  vivarium kubernetes seccomp > sandbox.json
  vivarium kubernetes seccomp --install /var/lib/kubelet/seccomp/vivarium`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			profile, err := nodeProfile()
			if err != nil {
				return err
			}
			if folder == "" {
				_, err := cmd.OutOrStdout().Write(profile)
				return err
			}
			return installProfile(cmd.Context(), system, folder, profile)
		},
	}
	cmd.Flags().StringVar(&folder, "install", "", "write the profile to "+profileName+" in this folder, then wait")
	return cmd
}

// nodeProfile returns the profile of all sandboxes, indented: also of those that serve one run,
// whose supervisor makes namespaces for the network.
func nodeProfile() ([]byte, error) {
	text, err := seccomp.NodeProfile(true)
	if err != nil {
		return nil, err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(text), "", "  "); err != nil {
		return nil, err
	}
	indented.WriteByte('\n')
	return indented.Bytes(), nil
}

// installProfile writes the profile and waits until ctx ends.
func installProfile(ctx context.Context, system System, folder string, profile []byte) error {
	path := filepath.Join(folder, profileName)
	if err := replaceFile(path, profile); err != nil {
		return fmt.Errorf("--install: %w", err)
	}
	_, _ = fmt.Fprintf(system.Stderr, "Wrote %s.\n", path)
	<-ctx.Done()
	return nil
}

// replaceFile writes a file, of which others never see a part. It makes the folder.
func replaceFile(path string, content []byte) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	file, err := os.CreateTemp(folder, "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync()) // after a crash of the node it must not be empty
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
