package link

import (
	"context"
	"time"
)

// EndProtocol is what a connection names to end a sandbox.
const EndProtocol = endProtocol

// DialBriefly dials with a short bound.
func DialBriefly(ctx context.Context, c *Credentials, address string) (*Conn, error) {
	return c.dial(ctx, address, "", Protocol, time.Millisecond)
}
