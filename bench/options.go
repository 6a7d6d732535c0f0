package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// options are the command line.
type options struct {
	binary  string // of the server; empty builds it
	against string // what it is compared with; empty is the bare engine
	images  words
	local   bool
	roots   words

	kubeconfig  string
	serverImage string
	blanks      int

	cases    *regexp.Regexp
	programs programNames
	clients  counters
	bursts   counters
	rounds   int
	each     time.Duration // of a turn
	pause    time.Duration // before each paced call
	stages   bool
	limit    time.Duration // of the whole benchmark
	jsonPath string
}

// words is a flag: words separated by commas.
type words []string

// String implements [flag.Value].
func (w *words) String() string { return strings.Join(*w, ",") }

// Set implements [flag.Value].
func (w *words) Set(value string) error {
	*w = strings.Split(value, ",")
	return nil
}

// counters is a flag: numbers of clients, separated by commas.
type counters []int

// String implements [flag.Value].
func (c *counters) String() string {
	texts := make([]string, len(*c))
	for i, n := range *c {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}

// Set implements [flag.Value].
func (c *counters) Set(value string) error {
	*c = nil
	if value == "" {
		return nil
	}
	for word := range strings.SplitSeq(value, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number of clients", word)
		}
		*c = append(*c, n)
	}
	return nil
}

// parse reads the command line. It prints errors to stderr too.
func parse(args []string, stderr io.Writer) (options, error) {
	opts := options{
		images: words{"vivarium/sandbox:latest", "vivarium/sandbox:slim"}, roots: words{""},
		programs: programs(), clients: counters{1, 4, 10}, bursts: counters{10, 32},
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.binary, "binary", "", "server to measure; empty builds this module's")
	flags.StringVar(&opts.against, "against", "", "server to compare it with; if empty, the bare engine, or with -kubernetes a pod for each run, in the cases that these have. With -kubernetes, docker is the same server with the Docker backend")
	flags.Var(&opts.images, "image", "sandbox images, separated by commas")
	flags.BoolVar(&opts.local, "local", false, "measure sandboxes without an engine")
	flags.Var(&opts.roots, "root", "with -local, folders with a root file system each, such as an unpacked image, separated by commas; if empty, this machine's Python")
	flags.StringVar(&opts.kubeconfig, "kubernetes", "", "measure sandboxes in the cluster of this kubeconfig, whose pods this machine reaches. The chart is installed there, unless KUBERNETES_POOL is set: then servers use that pool, with the settings of the environment")
	flags.StringVar(&opts.serverImage, "server-image", "vivarium/server:integration", "with -kubernetes, the server's image, which makes the keys of pods")
	flags.IntVar(&opts.blanks, "blanks", 4, "with -kubernetes, how many pods wait for a server")
	cases := flags.String("cases", "", "regular expression: only the cases whose names match it")
	flags.Var(&opts.programs, "program", "programs, separated by commas: each is measured paced, the first in all cases")
	flags.Var(&opts.clients, "clients", "numbers of clients that call back to back; empty skips it")
	flags.Var(&opts.bursts, "burst", "numbers of clients that call back to back a server that has just started; empty skips it")
	flags.IntVar(&opts.rounds, "rounds", 6, "rounds; in each, both sides take a turn in each case. Fewer than 6 are too few for an interval of 95 %")
	flags.DurationVar(&opts.each, "each", 2*time.Second, "time of a turn")
	flags.DurationVar(&opts.pause, "pause", 20*time.Millisecond, "pause before each paced call; with ISOLATION=container, 700ms lets the pool fill again")
	flags.BoolVar(&opts.stages, "stages", false, "show where a server's time goes, too")
	flags.DurationVar(&opts.limit, "limit", 2*time.Hour, "time after which the benchmark gives up")
	flags.StringVar(&opts.jsonPath, "json", "", "file that gets the results as JSON; - is stdout, in place of the table")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 {
		return opts, fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	var err error
	if opts.cases, err = regexp.Compile(*cases); err != nil {
		return opts, fmt.Errorf("-cases: %w", err)
	}
	return opts, opts.check()
}

// againstDocker compares the Kubernetes backend with the Docker backend of the same binary.
const againstDocker = "docker"

// base names what is compared with, "" for nothing.
func (o options) base() string {
	switch {
	case o.against != "":
		return filepath.Base(o.against)
	case o.local:
		return ""
	case o.kubeconfig != "":
		return "pod and execs"
	}
	return "bare engine"
}

// needsEngine reports whether a side has containers.
func (o options) needsEngine() bool {
	return !o.local && (o.kubeconfig == "" || o.against == againstDocker)
}

func (o options) check() error {
	switch {
	case o.rounds < 1:
		return errors.New("-rounds must be at least 1")
	case o.each <= 0:
		return errors.New("-each must be more than 0")
	case o.pause < 0:
		return errors.New("-pause must not be negative")
	case o.local && o.kubeconfig != "":
		return errors.New("-local and -kubernetes exclude each other")
	case o.against == againstDocker && o.kubeconfig == "":
		return errors.New("-against docker needs -kubernetes")
	case o.blanks < 1:
		return errors.New("-blanks must be at least 1")
	case !o.local && o.roots.String() != "":
		return errors.New("-root needs -local")
	}
	return nil
}
