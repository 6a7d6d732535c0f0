package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-sandbox/vivarium/config"
)

const runArgs = "PYTHON_EXECUTOR_DOCKER_RUN_ARGS"

// Flags become settings, or values of the containers.
func TestRunArgs(t *testing.T) {
	for text, want := range map[string]func(*config.Config){
		"":                            func(*config.Config) {},
		"  ":                          func(*config.Config) {},
		"--memory 512m":               func(c *config.Config) { c.MemoryLimitMB, c.WorkspaceLimitMB, c.TmpLimitMB = 512, 256, 128 },
		"-m 1g --memory-swap=1024MiB": func(c *config.Config) { c.MemoryLimitMB = 1024 },
		"-m512M":                      func(c *config.Config) { c.MemoryLimitMB, c.WorkspaceLimitMB, c.TmpLimitMB = 512, 256, 128 },
		"-m=536870912":                func(c *config.Config) { c.MemoryLimitMB, c.WorkspaceLimitMB, c.TmpLimitMB = 512, 256, 128 },
		"--memory 0.5g --memory 512m": func(c *config.Config) { c.MemoryLimitMB, c.WorkspaceLimitMB, c.TmpLimitMB = 512, 256, 128 },
		"--cpus=1.5 --pids-limit 128": func(c *config.Config) { c.CPULimit, c.PidsLimit = 1.5, 128 },
		"--network backend":           func(c *config.Config) { c.Network = "backend" },
		"--net=backend --runtime kata": func(c *config.Config) {
			c.Network, c.Runtime = "backend", "kata"
		},
		"--tmpfs /tmp:rw,noexec,size=32m --tmpfs /workspace:exec,size=16m": func(c *config.Config) {
			c.TmpLimitMB, c.WorkspaceLimitMB = 32, 16
		},
		"--ulimit cpu=9:10":                          func(c *config.Config) { c.CPUTimeLimitSec = 10 },
		"--ulimit fsize=1000 --ulimit=stack=1:2":     func(c *config.Config) { c.RunArgs.Ulimits = []config.Ulimit{{"fsize", 1000, 1000}, {"stack", 1, 2}} },
		"--shm-size 64m":                             func(c *config.Config) { c.RunArgs.SharedMemoryBytes = 64 << 20 },
		"--cpuset-cpus 0-1,3 --cpuset-mems=0 -c 512": func(c *config.Config) { c.RunArgs.CPUs, c.RunArgs.MemoryNodes, c.RunArgs.CPUShares = "0-1,3", "0", 512 },
		`-e A=1 --env "B=two words" --env='C="q"' -eD=\ x`: func(c *config.Config) {
			c.RunArgs.Env = []string{"A=1", "B=two words", `C="q"`, "D= x"}
		},
		"--env HTTP_PROXY=http://proxy:3128 -e EMPTY=": func(c *config.Config) { c.RunArgs.Env = []string{"HTTP_PROXY=http://proxy:3128", "EMPTY="} },
		"--label a=b -l c": func(c *config.Config) { c.RunArgs.Labels = []string{"a=b", "c"} },
		"--dns 10.0.0.2 --dns-search=x.example --dns-option ndots:1": func(c *config.Config) {
			c.RunArgs.DNS, c.RunArgs.DNSSearch, c.RunArgs.DNSOptions = []string{"10.0.0.2"}, []string{"x.example"}, []string{"ndots:1"}
		},
		"--add-host a:10.0.0.2 --add-host b=::1 -h box": func(c *config.Config) {
			c.RunArgs.Hosts, c.RunArgs.Hostname = []string{"a:10.0.0.2", "b:::1"}, "box"
		},
		"--rm --read-only=true -di --cap-drop ALL --security-opt no-new-privileges --pull missing --ipc=private --privileged=false": func(*config.Config) {},
	} {
		want0, err := load(t, nil)
		if err != nil {
			t.Fatal(err)
		}
		want(&want0)
		got, err := load(t, map[string]string{runArgs: text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got.RunArgs.Text != strings.TrimSpace(text) {
			t.Errorf("%s: the text is %q", text, got.RunArgs.Text)
		}
		want0.RunArgs.Text = got.RunArgs.Text
		if diff := cmp.Diff(exported(want0), exported(got)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", text, diff)
		}
	}
}

// exported describes the settings that flags can change.
func exported(c config.Config) string {
	a := c.RunArgs
	return fmt.Sprintf("%d %v %d %q %q %d %d %d\n%q %q %q %q %q %q %q %d %q %q %d %v", c.MemoryLimitMB, c.CPULimit, c.PidsLimit, c.Network, c.Runtime,
		c.TmpLimitMB, c.WorkspaceLimitMB, c.CPUTimeLimitSec, a.Text, a.Env, a.Labels, a.DNS, a.DNSSearch, a.DNSOptions, a.Hosts, a.SharedMemoryBytes,
		a.CPUs, a.MemoryNodes, a.CPUShares, fmt.Sprint(a.Ulimits, a.Hostname))
}

// A flag that would open the sandbox, is not known, or has a bad value is refused by name.
func TestRunArgsRefused(t *testing.T) {
	const opens = ", which is refused: it would open the sandbox"
	for text, want := range map[string]string{
		"--privileged": "--privileged" + opens, "--privileged=true": "--privileged" + opens, "--cap-add SYS_ADMIN": "--cap-add" + opens,
		"--device /dev/sda": "--device" + opens, "-v /:/host": "--volume" + opens, "-v/:/host": "--volume" + opens, "--volume=/:/host": "--volume" + opens,
		"--mount type=bind,src=/,dst=/host": "--mount" + opens, "--volumes-from x": "--volumes-from" + opens, "--pid host": "--pid" + opens,
		"--uts=host": "--uts" + opens, "--userns host": "--userns" + opens, "--group-add 0": "--group-add" + opens, "--gpus all": "--gpus" + opens,
		"--oom-kill-disable": "--oom-kill-disable" + opens, "--oom-score-adj -1000": "--oom-score-adj" + opens, "-p 80:80": "--publish" + opens,
		"-P": "--publish-all" + opens, "--sysctl a=b": "--sysctl" + opens, "--cgroup-parent /": "--cgroup-parent" + opens, "--link a": "--link" + opens,
		"--network host": `--network "host": is refused: it would open the sandbox`, "--ipc host": `--ipc "host": must be private`,
		"--cgroupns=host": `--cgroupns "host": must be private`, "--security-opt seccomp=unconfined": `--security-opt "seccomp=unconfined": is refused`,
		"--security-opt=apparmor=unconfined": `--security-opt "apparmor=unconfined": is refused`, "--security-opt no-new-privileges=false": "is refused",
		"--user root": "--user, which is refused: the server decides it", "-u 0": "--user, which is refused", "--name x": "--name, which is refused",
		"--init": "--init, which is refused", "-it": "--tty, which is refused", "--platform linux/arm64": "--platform, which is refused: set PYTHON_EXECUTOR_DOCKER_IMAGE",
		"--read-only=false": "--read-only=false: every sandbox has it", "--rm=maybe": "--rm=maybe: must be true or false",
		"--frob x": "--frob, which is not supported: the supported flags are --add-host, ", "-x": "-x, which is not supported", "-": `"-", which is not a flag`,
		"--rm python3": `"python3", which is not a flag`, "--": `"--", which is not a flag`, "--memory": "--memory without a value",
		"-m lots": `--memory "lots": must be a size`, "-m 4m": `--memory "4m": must be a whole number from 32 to 1048576, as MEMORY_LIMIT_MB`,
		"-m 1000000b": "must be a whole number of megabytes", "--cpus many": "as CPU_LIMIT", "--cpus 0": "as CPU_LIMIT", "--pids-limit -1": "as PIDS_LIMIT",
		"--memory 512m --memory 1g": "must be given once", "--memory-swap 2g": "sandboxes have no swap", "--memory-swap -1": "must be a size",
		"--shm-size 2g": "must be at most the memory of a sandbox", "--tmpfs /data": `--tmpfs "/data": must be /tmp or /workspace`, "--tmpfs /tmp:exec": `has the option "exec"`,
		"--ulimit nofile=1": "must be of cpu, fsize", "--ulimit nproc=1": "PIDS_LIMIT", "--ulimit core": "must be NAME=SOFT", "--ulimit cpu=-1": "must be NAME=SOFT",
		"-e A": "must be NAME=VALUE", "-e =x": "must be NAME=VALUE", "-e LD_PRELOAD=x": "must not set LD_PRELOAD", "-e PATH=/": "must not set PATH",
		"--env-file x": "give each variable with --env", "--label vivarium.session=x": "must not begin with vivarium.", "--cpuset-cpus all": "must be numbers and ranges",
		"-c 1": "must be a whole number from 2", "--add-host a": "must be NAME:ADDRESS", "-h a_b!": "must be a host name", "--pull always": "must be missing",
		`--env "A=1`: "is not valid: a quote is not closed", `-e A=1\`: "is not valid: nothing follows the last backslash",
	} {
		_, err := load(t, map[string]string{runArgs: text})
		if err == nil || !strings.HasPrefix(err.Error(), runArgs+" ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := load(t, map[string]string{runArgs: text, "EXECUTOR_BACKEND": "local"}); err != nil {
			t.Errorf("%s, without Docker: %v", text, err)
		}
	}
}

// All faults are reported, up to a flag that is not known.
func TestRunArgsReportEveryFault(t *testing.T) {
	_, err := load(t, map[string]string{runArgs: "--privileged -m x --rm --cap-add=ALL"})
	for _, want := range []string{"--privileged", "--memory", "--cap-add"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s: %v", want, err)
		}
	}
}

// A flag and the setting that it stands for must agree.
func TestRunArgsAgreeWithSettings(t *testing.T) {
	if c, err := load(t, map[string]string{runArgs: "-m 512m --cpus 2", "MEMORY_LIMIT_MB": " 5_12", "CPU_LIMIT": "2"}); err != nil || c.MemoryLimitMB != 512 {
		t.Errorf("equal: %d %v", c.MemoryLimitMB, err)
	}
	_, err := load(t, map[string]string{runArgs: "-m 512m", "MEMORY_LIMIT_MB": "256"})
	want := `MEMORY_LIMIT_MB is "256", and PYTHON_EXECUTOR_DOCKER_RUN_ARGS has --memory, which makes it "512": must be equal, or only one of them set`
	if err == nil || err.Error() != want {
		t.Errorf("different: %v", err)
	}
	c, err := load(t, map[string]string{runArgs: "-m 48m"})
	if err != nil || c.WorkspaceLimitMB != 48 {
		t.Errorf("a default that gives way: %d %v", c.WorkspaceLimitMB, err)
	}
	_, err = load(t, map[string]string{runArgs: "-m 48m", "TMP_LIMIT_MB": "64"})
	if err == nil || !strings.Contains(err.Error(), "TMP_LIMIT_MB is 64: must be at most MEMORY_LIMIT_MB, which is 48") {
		t.Errorf("a bound: %v", err)
	}
	if c, err := load(t, map[string]string{runArgs: "-m 512m --network x", "EXECUTOR_BACKEND": "local"}); err != nil || c.MemoryLimitMB != 1024 {
		t.Errorf("without Docker: %d %v", c.MemoryLimitMB, err)
	}
}
