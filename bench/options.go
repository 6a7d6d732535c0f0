package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// options are the command line.
type options struct {
	image    string
	binary   string // of the server; empty builds it
	program  program
	calls    int           // of ours when paced; the slow sides make a fifth of them
	pause    time.Duration // before each paced call
	refill   time.Duration // the same, for a container a run: its pool must fill again
	clients  clientCounts
	each     time.Duration // sustained time of each side at each number of clients
	rounds   int           // into which that time is split
	settle   time.Duration // for the pool to refill
	soak     int           // runs before the memory is looked at again
	files    int           // size of the file that comes and goes, in MB; 0 skips this part
	ways     int           // calls of each other way to run a program
	local    bool          // sandboxes without an engine are measured too
	cold     int           // programs that a command of its own runs
	mcp      int           // calls of the tool over each transport of MCP
	limit    time.Duration // of the whole benchmark
	jsonPath string
}

// clientCounts is a flag: numbers of clients, separated by commas.
type clientCounts []int

// String implements [flag.Value].
func (c *clientCounts) String() string {
	words := make([]string, len(*c))
	for i, n := range *c {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// Set implements [flag.Value].
func (c *clientCounts) Set(value string) error {
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
	opts := options{clients: clientCounts{1, 4, 10}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.image, "image", "vivarium/sandbox:slim", "sandbox image of both sides")
	flags.StringVar(&opts.binary, "binary", "", "server to measure; empty builds this module's")
	name := flags.String("program", "small", "what is run: small, or pandas, which needs -image vivarium/sandbox:latest")
	flags.IntVar(&opts.calls, "n", 200, "paced calls; the slow sides make a fifth of them; 0 skips this part")
	flags.DurationVar(&opts.pause, "pause", 20*time.Millisecond, "pause before each paced call")
	flags.DurationVar(&opts.refill, "refill", 700*time.Millisecond, "the same where each run has a container of its own, for the pool to refill")
	flags.Var(&opts.clients, "clients", "numbers of clients of the sustained part; empty skips it")
	flags.DurationVar(&opts.each, "each", 8*time.Second, "sustained time of each side at each number of clients")
	flags.IntVar(&opts.rounds, "rounds", 2, "turns into which that time is split")
	flags.DurationVar(&opts.settle, "settle", 2*time.Second, "pause between turns, for the pool to refill")
	flags.DurationVar(&opts.limit, "limit", 10*time.Minute, "time after which the benchmark gives up")
	flags.IntVar(&opts.soak, "soak", 0, "runs that must have been made before the server's memory is looked at again, such as 10000")
	flags.IntVar(&opts.files, "files", 0, "size in MB of a file to store and get beside cp and plain handlers, such as 100; 0 skips this part")
	flags.IntVar(&opts.ways, "ways", 0, "calls of each other way to run the program: streamed, in a session, with files; such as 200; 0 skips this part")
	flags.BoolVar(&opts.local, "local", false, "measure sandboxes without an engine too; LOCAL_ROOTFS, an unpacked -image, gives them the same Python")
	flags.IntVar(&opts.cold, "cold", 0, "programs run by vivarium exec, each in a process of its own, beside docker run and the interpreter alone; such as 20; 0 skips this part")
	flags.IntVar(&opts.mcp, "mcp", 0, "calls of the program over MCP, over HTTP and stdio each; such as 200; 0 skips this part")
	flags.StringVar(&opts.jsonPath, "json", "", "file that gets the results as JSON; - is stdout, in place of the table")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() > 0 {
		return opts, fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	switch *name {
	case "small":
		opts.program = small()
	case "pandas":
		opts.program = pandas()
	default:
		return opts, fmt.Errorf("-program is %q: must be small or pandas", *name)
	}
	return opts, opts.check()
}

func (o options) check() error {
	switch {
	case o.calls < 0:
		return errors.New("-n must not be negative")
	case o.files < 0:
		return errors.New("-files must not be negative")
	case o.ways < 0:
		return errors.New("-ways must not be negative")
	case o.cold < 0:
		return errors.New("-cold must not be negative")
	case o.mcp < 0:
		return errors.New("-mcp must not be negative")
	case o.rounds < 1:
		return errors.New("-rounds must be at least 1")
	case len(o.clients) > 0 && o.each < time.Duration(o.rounds)*time.Second:
		return errors.New("-each must be at least a second a round")
	}
	return nil
}
