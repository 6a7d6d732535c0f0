package execution

import (
	"context"
	"sync"
)

// Budget bounds the memory that requests hold at once: their bodies, the values that
// are decoded from them, the output of their programs, and their answers. Owners
// share it by the rule of [HasRoom]. It is safe for concurrent use.
type Budget struct{ share *FairShare }

// NewBudget returns a Budget of a number of bytes.
func NewBudget(bytes int64) *Budget { return &Budget{NewFairShare(bytes)} }

// Open opens the account of an owner's request. The caller must close it. A nil
// Budget has no limit, and its accounts are nil.
func (b *Budget) Open(owner Owner) *Account {
	if b == nil {
		return nil
	}
	return &Account{budget: b, owner: owner, users: 1}
}

// Account counts what one request holds of a [Budget]. It is safe for concurrent use.
// A nil Account has no limit.
type Account struct {
	budget *Budget
	owner  Owner

	mu    sync.Mutex
	held  int64
	users int // zero when the account is closed
}

// Take charges the account with n bytes, before they are allocated. The error is an
// [*Error]: its code is [Busy] where the owner's share has no room for them, and
// [Overloaded] where the budget has none.
func (a *Account) Take(n int64) error {
	if a == nil || n <= 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users == 0 {
		return &Error{Code: Cancelled, Message: "the request is over"}
	}
	if !a.budget.share.TryAcquire(a.owner, n) {
		return a.refusal(n)
	}
	a.held += n
	return nil
}

func (a *Account) refusal(n int64) error {
	if a.owner == "" || a.budget.share.room() < n {
		return &Error{Code: Overloaded, Message: "the requests under way hold the memory that the server has for them (MAX_IN_FLIGHT_MB); try again later"}
	}
	return &Error{Code: Busy, Message: "your requests under way hold your share of the server's memory (MAX_IN_FLIGHT_MB); try again later"}
}

// Give returns n bytes that were taken.
func (a *Account) Give(n int64) {
	if a == nil || n <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if n = min(n, a.held); n > 0 {
		a.held -= n
		a.budget.share.Release(a.owner, n)
	}
}

// Share keeps the account open until Close is called once more. It is for memory that
// outlasts the request that opened the account.
func (a *Account) Share() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users++
}

// Close returns everything that the account holds, once each of its users has called
// it.
func (a *Account) Close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users--; a.users == 0 && a.held > 0 {
		a.budget.share.Release(a.owner, a.held)
		a.held = 0
	}
}

type accountKey struct{}

// WithAccount returns a context for the request of an account.
func WithAccount(ctx context.Context, a *Account) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

// AccountOf returns the account of a request. It is nil where memory has no limit.
func AccountOf(ctx context.Context) *Account {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a
}
