package execution

import "context"

// Owner is who a request comes from: to them belong the files and sessions that
// it makes, and nobody else finds those. It is a name of ours from which no
// secret can be told, of letters and digits. The zero value is everybody, where nobody is asked who
// they are.
type Owner string

type ownerKey struct{}

// WithOwner gives a context for an owner's request.
func WithOwner(ctx context.Context, owner Owner) context.Context {
	return context.WithValue(ctx, ownerKey{}, owner)
}

// OwnerOf gives the owner of a request.
func OwnerOf(ctx context.Context) Owner {
	owner, _ := ctx.Value(ownerKey{}).(Owner)
	return owner
}
