// Command scale measures what a pool with very many pods costs a server and the apiserver.
//
// The pods are objects without a node: no scheduler and no kubelet takes them, and this command
// writes what a kubelet would report of them. Everything else is real: the apiserver, etcd, the
// pods' template from the chart, and the server's own index of pods and its claims, which end
// where a server would connect to a pod.
//
//	go run ./bench/scale -kubernetes KUBECONFIG -pods 2000
//	go run ./bench/scale -kubernetes KUBECONFIG -pods 20000 -sessions 19000
//
// The pods are in a namespace of their own, which is removed at the end. The controllers and the
// scheduler of the cluster keep a copy of each pod in memory meanwhile.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/vivarium-sandbox/vivarium/bench/cluster"
	"github.com/vivarium-sandbox/vivarium/config"
)

// options are the command line.
type options struct {
	kubeconfig  string
	serverImage string
	image       string
	pods        int
	sessions    int // of the pods; the others are blanks
	writers     int
	claimants   int
	each        time.Duration
	profile     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintf(os.Stderr, "scale: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.kubeconfig, "kubernetes", "", "kubeconfig of a cluster, as its administrator")
	flags.StringVar(&o.serverImage, "server-image", "vivarium/server:integration", "the server's image, as the template names it")
	flags.StringVar(&o.image, "image", "vivarium/sandbox:slim", "the sandboxes' image, as the template names it")
	flags.IntVar(&o.pods, "pods", 2000, "pods of the pool")
	flags.IntVar(&o.sessions, "sessions", 0, "how many of them are sessions; the others are blanks")
	flags.IntVar(&o.writers, "writers", 4, "how many pods are made at once")
	flags.IntVar(&o.claimants, "claimants", 4, "how many claims are under way at once")
	flags.DurationVar(&o.each, "each", 5*time.Second, "how long each of several measurements takes")
	flags.StringVar(&o.profile, "profile", "", "file that gets a profile of this process's CPU time while pods are claimed")
	err := flags.Parse(args)
	switch {
	case err != nil:
		return o, err
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q is not a flag", flags.Arg(0))
	case o.kubeconfig == "":
		return o, errors.New("-kubernetes: required")
	case o.pods < 1 || o.sessions < 0 || o.sessions > o.pods || o.writers < 1 || o.claimants < 1:
		return o, errors.New("-pods, -writers and -claimants must be at least 1, and -sessions at most -pods")
	}
	return o, nil
}

// run is the whole command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	settings, err := config.Load(ctx, os.LookupEnv)
	if err != nil {
		return err
	}
	if settings, err = settings.ForMachine(config.Machine{}); err != nil {
		return err
	}
	c, err := cluster.Connect(o.kubeconfig)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(stderr, "installing the chart")
	pool, err := c.Install(ctx, cluster.Values{ServerImage: o.serverImage, Image: o.image, Blanks: 1, Settings: settings, NoQuota: true})
	defer func() { err = errors.Join(err, pool.Remove(ctx)) }()
	if err != nil {
		return err
	}
	crowd, err := newCrowd(ctx, pool)
	if err != nil {
		return err
	}
	defer func() {
		_, _ = fmt.Fprintln(stderr, "deleting the pods")
		err = errors.Join(err, crowd.remove(ctx))
	}()
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(stdout, format+"\n", args...) }
	_, _ = fmt.Fprintln(stderr, "making the pods")
	if err := crowd.make(ctx, o, say); err != nil {
		return err
	}
	return observe(ctx, o, settings, pool, say)
}

// observe measures a server's view of the pods.
func observe(ctx context.Context, o options, settings config.Config, pool *cluster.Pool, say func(format string, args ...any)) (err error) {
	v, err := newView(ctx, o.pods, settings, pool, say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.backend.Close()) }()
	if err := v.count(ctx, say); err != nil || o.pods == o.sessions {
		return err
	}
	if o.profile != "" {
		file, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	for _, claimants := range []int{1, o.claimants} {
		if err := v.claim(ctx, claimants, o.each, say); err != nil {
			return err
		}
	}
	return nil
}
