package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	dockerclient "github.com/docker/docker/client"
)

// address returns how to reach the engine, as the Docker CLI decides it: DOCKER_HOST
// and its companions, else the requested or current context, else the default socket.
func address(opts Options) ([]dockerclient.Opt, error) {
	name := opts.Context
	if name == "" && opts.Host == "" && opts.ConfigDir != "" {
		current, err := currentContext(opts.ConfigDir)
		if err != nil {
			return nil, err
		}
		name = current
	}
	if opts.Host != "" || name == "" || name == "default" {
		return []dockerclient.Opt{dockerclient.FromEnv}, nil
	}
	return contextOptions(opts.ConfigDir, name)
}

// currentContext reads the CLI's choice from its config.json, which need not
// be there.
func currentContext(configDir string) (string, error) {
	var config struct{ CurrentContext string }
	err := readJSON(filepath.Join(configDir, "config.json"), &config)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	return config.CurrentContext, err
}

// contextOptions reads a context from the CLI's store: contexts/meta/ID/meta.json,
// and contexts/tls/ID/docker for its certificates, where ID is the name's
// SHA-256 (github.com/docker/cli, cli/context/store).
func contextOptions(configDir, name string) ([]dockerclient.Opt, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	store := filepath.Join(configDir, "contexts")
	if err := readJSON(filepath.Join(store, "meta", id, "meta.json"), &meta); err != nil {
		return nil, fmt.Errorf("DOCKER_CONTEXT %q: no such context in %s: %w", name, store, err)
	}
	host := meta.Endpoints["docker"].Host
	if host == "" {
		return nil, fmt.Errorf("DOCKER_CONTEXT %q names no Docker host", name)
	}
	options := []dockerclient.Opt{dockerclient.WithHost(host)}
	tls := filepath.Join(store, "tls", id, "docker")
	if _, err := os.Stat(tls); err == nil {
		options = append([]dockerclient.Opt{dockerclient.WithTLSClientConfig(
			filepath.Join(tls, "ca.pem"), filepath.Join(tls, "cert.pem"), filepath.Join(tls, "key.pem"))}, options...)
	}
	return options, nil
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
