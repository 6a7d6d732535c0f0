package local

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	bus "github.com/godbus/dbus/v5"
)

// scopeTime bounds the request for a scope. A busy manager takes seconds.
const scopeTime = 10 * time.Second

var errNoScope = fmt.Errorf("systemd made no scope within %v", scopeTime)

// manager is systemd's, of the system or of a user.
type manager interface {
	// StartTransientUnitContext queues a job that starts a unit; its result is sent to done.
	StartTransientUnitContext(ctx context.Context, name, mode string, properties []dbus.Property, done chan<- string) (int, error)
	Close()
}

// enterScope asks systemd to move this process into a unit of its own, a scope, whose
// cgroup it may divide. Otherwise a process that a terminal or an IDE has started shares
// a cgroup. A scope ends with its last process.
//
// See systemd.scope(5) and "Control Group APIs and Delegation" in systemd's documentation.
func enterScope(ctx context.Context, server string, connect func(context.Context) (manager, error)) error {
	ctx, cancel := context.WithTimeout(ctx, scopeTime)
	defer cancel()
	m, err := connect(ctx)
	if err != nil && ctx.Err() != nil {
		return errNoScope
	}
	if err != nil {
		return fmt.Errorf("systemd cannot be reached: %w", err)
	}
	defer m.Close()
	done := make(chan string, 1)
	_, err = m.StartTransientUnitContext(ctx, groupPrefix+server+".scope", "fail", []dbus.Property{
		dbus.PropDescription("Vivarium and its sandboxes"),
		dbus.PropPids(uint32(os.Getpid())),
		{Name: "Delegate", Value: bus.MakeVariant(true)},
		{Name: "CollectMode", Value: bus.MakeVariant("inactive-or-failed")}, // a failure leaves nothing to clear away
	}, done)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("systemd refuses a scope: %w", err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd could not make a scope: the job is %q", result)
		}
		return nil
	case <-ctx.Done():
		return errNoScope
	}
}

// connectManager connects to the systemd that manages this process: the system's for
// root, the user's own for others. It uses the fixed path of the user's bus, since
// desktop programs start servers without most of the environment.
func connectManager(ctx context.Context) (manager, error) {
	if os.Geteuid() == 0 {
		return dbus.NewWithContext(ctx)
	}
	address := "unix:path=/run/user/" + strconv.Itoa(os.Geteuid()) + "/bus"
	return dbus.NewConnection(func() (*bus.Conn, error) { return bus.Connect(address, bus.WithContext(ctx)) })
}
