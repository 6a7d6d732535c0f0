package execution

import "context"

// Owner is who a request comes from. Files and sessions belong to the owner whose
// request created them, and no other owner finds them. An Owner is a name of letters
// and digits that reveals no secret. The zero value is the one owner of a server
// without authentication.
type Owner string

type ownerKey struct{}

// WithOwner returns a context for an owner's request.
func WithOwner(ctx context.Context, owner Owner) context.Context {
	return context.WithValue(ctx, ownerKey{}, owner)
}

// OwnerOf returns the owner of a request.
func OwnerOf(ctx context.Context) Owner {
	owner, _ := ctx.Value(ownerKey{}).(Owner)
	return owner
}
