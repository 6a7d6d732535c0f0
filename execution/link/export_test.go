package link

import (
	"context"
	"time"
)

// DialBriefly dials with a short bound.
func DialBriefly(ctx context.Context, c *Credentials, address string) (*Conn, error) {
	return c.dial(ctx, address, "", time.Millisecond)
}
