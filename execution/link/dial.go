package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"syscall"
	"time"
)

const (
	// Protocol is the version of the link, as ALPN names it.
	Protocol = "vivarium-link/1"
	// endProtocol is what a connection names instead of Protocol to end the sandbox.
	endProtocol = "vivarium-link-end/1"
)

// dialTime bounds a dial, handshake included. With a small CPU limit a pod may take seconds.
const dialTime = 10 * time.Second

// How a lost node is noticed, within 15 s: [boundSilence] for what was sent, these for the rest.
const (
	keepIdle     = 5 * time.Second
	keepInterval = 3 * time.Second
	keepCount    = 3
)

// Why there is no link to a pod. The errors of [Credentials.Dial], and of the first
// [Conn.Read] or [Conn.Write], wrap them.
var (
	// ErrRefused: nothing listens at the address. The pod has ended, or has not started.
	ErrRefused = errors.New("nothing listens")
	// ErrSilent: nothing answers at the address within the time for a dial.
	ErrSilent = errors.New("nothing answers")
	// ErrPin: what answers has another key. The address belongs to another pod now.
	ErrPin = errors.New("another pod answers")
	// ErrVersion: the pod has another version of the link.
	ErrVersion = errors.New("a pod with another version of the link answers")
	// ErrRejected: the pod does not accept the server's certificate. All pods of its template
	// will not.
	ErrRejected = errors.New("the pod rejects this server's certificate")
)

// Dial connects to PID 1 of a pod, whose key must have the pin. The address is a host, in
// brackets if it is of IPv6, and a port.
//
// A pod judges the server's certificate after the handshake has ended for the server (TLS
// 1.3), so that [ErrRejected] comes from the connection's first Read or Write.
func (c *Credentials) Dial(ctx context.Context, address, pin string) (*Conn, error) {
	return c.dial(ctx, address, pin, Protocol, dialTime)
}

// End has PID 1 of a pod exit, which ends all that is in the sandbox, and returns when it has. PID 1
// accepts that while it waits for a server, and in a session at any time.
func (c *Credentials) End(ctx context.Context, address, pin string) error {
	conn, err := c.dial(ctx, address, pin, endProtocol, dialTime)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _ = conn.Read(make([]byte, 1)) // it fails when PID 1 has exited
	return context.Cause(ctx)
}

func (c *Credentials) dial(ctx context.Context, address, pin, protocol string, limit time.Duration) (*Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dialer := tls.Dialer{
		NetDialer: NewDialer(),
		Config:    config(c.certificate(), address, pin, protocol),
	}
	conn, err := dialer.DialContext(bounded, "tcp", address)
	if err == nil {
		return newConn(conn.(*tls.Conn), address), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("the link to the pod at %s: %w", address, context.Cause(ctx))
	}
	return nil, explain(err, address, protocol, limit)
}

// NewDialer returns a dialer whose connections notice a lost node.
func NewDialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount},
		Control:         boundSilence,
	}
}

// config returns the terms of a connection to a pod.
func config(own *tls.Certificate, address, pin, protocol string) *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.CurveP256}, // OpenSSL in FIPS mode has it
		NextProtos:       []string{protocol},
		// Always this one, whatever authorities the pod names: a pod that trusts another one
		// then reports that, and not that there is no certificate.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
		// A pod's certificate is self-signed, and addresses pass from pod to pod: neither an
		// authority nor a name identifies the pod that answers. Its key does. VerifyConnection
		// accepts no other key, and TLS itself checks that the pod has the private one.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			if got := pinOf(state.PeerCertificates[0]); got != pin {
				return fmt.Errorf("%w at %s: its key is %s and must be %s", ErrPin, address, got, pin)
			}
			if state.NegotiatedProtocol != protocol {
				return versionError(address, protocol)
			}
			return nil
		},
	}
}

func versionError(address, protocol string) error {
	return fmt.Errorf("%w at %s: it does not know %s", ErrVersion, address, protocol)
}

// alertNoProtocol is the alert of a peer that shares no ALPN protocol (RFC 8446, section 6).
const alertNoProtocol = 120

// alertOf returns the alert by which the peer ended a connection. crypto/tls exports the
// numbers of alerts for QUIC alone.
func alertOf(err error) (number uint8, found bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	alert := reflect.ValueOf(op.Err)
	if alert.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(alert.Uint()), true
}

// explain returns an error of a dial as a sentence for operators.
func explain(err error, address, protocol string, limit time.Duration) error {
	if alert, found := alertOf(err); found && alert == alertNoProtocol {
		return versionError(address, protocol)
	}
	switch {
	case errors.Is(err, ErrPin), errors.Is(err, ErrVersion):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w at %s: the pod has ended, or does not run yet", ErrRefused, address)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w at %s within %v: the pod is lost or very slow, or a NetworkPolicy keeps this server from it", ErrSilent, address, limit)
	default:
		return fmt.Errorf("the link to the pod at %s: %w", address, err)
	}
}
