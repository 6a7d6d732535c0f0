package execution_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const mb = 1 << 20

// takeAll opens accounts of an owner, and takes pieces as long as that goes well.
func takeAll(b *execution.Budget, owner execution.Owner, piece int64) (taken int64, accounts []*execution.Account, err error) {
	for {
		a := b.Open(owner)
		accounts = append(accounts, a)
		if err = a.Take(piece); err != nil {
			return taken, accounts, err
		}
		taken += piece
	}
}

func codeOf(err error) execution.Code {
	if err == nil {
		return ""
	}
	return execution.AsError(err).Code
}

// One owner gets two thirds of a budget, and the next owner finds room.
func TestBudgetIsFair(t *testing.T) {
	b := execution.NewBudget(90 * mb)
	taken, accounts, err := takeAll(b, "anna", mb)
	if taken != 60*mb || codeOf(err) != execution.Busy {
		t.Errorf("one owner takes %d MB, then %v", taken>>20, err)
	}
	if a := b.Open("anna"); codeOf(a.Take(61*mb)) != execution.Overloaded {
		t.Error("what the budget does not have is not its owner's fault alone")
	}
	if ben, _, _ := takeAll(b, "ben", mb); ben < 19*mb {
		t.Errorf("another owner finds %d MB", ben>>20)
	}
	for _, a := range accounts {
		a.Close()
	}
	if again, _, _ := takeAll(b, "carl", mb); again < 40*mb {
		t.Errorf("when the first has closed, a third finds %d MB", again>>20)
	}
}

// One request gets no more than its owner may have: a large piece is weighed whole.
func TestBudgetWeighs(t *testing.T) {
	b := execution.NewBudget(90 * mb)
	if err := b.Open("anna").Take(61 * mb); codeOf(err) != execution.Busy {
		t.Errorf("more than two thirds at once: %v", err)
	}
	if err := b.Open("anna").Take(60 * mb); err != nil {
		t.Errorf("two thirds at once: %v", err)
	}
	if err := b.Open("ben").Take(60 * mb); codeOf(err) != execution.Overloaded {
		t.Errorf("more than there is: %v", err)
	}
}

// Without authentication there is one owner, who may take everything.
func TestBudgetWithoutOwners(t *testing.T) {
	taken, _, err := takeAll(execution.NewBudget(90*mb), "", mb)
	if taken != 90*mb || codeOf(err) != execution.Overloaded {
		t.Errorf("everybody takes %d MB, then %v", taken>>20, err)
	}
}

func TestAccount(t *testing.T) {
	b := execution.NewBudget(10)
	a := b.Open("")
	take := func(n int64, code execution.Code) {
		t.Helper()
		if err := a.Take(n); codeOf(err) != code {
			t.Errorf("taking %d: %v", n, err)
		}
	}
	take(6, "")
	take(5, execution.Overloaded)
	a.Give(3)
	take(7, "")
	a.Give(100) // no more than it holds
	take(10, "")
	take(1, execution.Overloaded)

	a.Share()
	a.Close()
	if err := b.Open("").Take(1); codeOf(err) != execution.Overloaded {
		t.Errorf("a shared account that was closed once: %v", err)
	}
	a.Close()
	take(1, execution.Cancelled)
	if err := b.Open("").Take(10); err != nil {
		t.Errorf("after the account was closed: %v", err)
	}

	a = (*execution.Budget)(nil).Open("anna")
	take(1<<60, "")
	a.Give(1)
	a.Share()
	a.Close()
}

func TestAccountOfContext(t *testing.T) {
	if execution.AccountOf(t.Context()) != nil {
		t.Error("a request without an account has one")
	}
	a := execution.NewBudget(1).Open("")
	if execution.AccountOf(execution.WithAccount(t.Context(), a)) != a {
		t.Error("a request's account is another")
	}
}

func TestClip(t *testing.T) {
	for name, text := range map[string]string{
		"letters":    strings.Repeat("a", 1<<20),
		"characters": strings.Repeat("日", 1<<20),
		"controls":   strings.Repeat("\x01", 1<<20),
		"no UTF-8":   strings.Repeat("\xff", 1<<20),
		"no start":   strings.Repeat("\x80", 1<<20),
	} {
		got := execution.Clip(text)
		if len(got) > 600 || !utf8.ValidString(got) || !strings.HasSuffix(got, "...") {
			t.Errorf("%s: %d bytes: %.40q", name, len(got), got)
		}
	}
	for _, text := range []string{"", "abc", strings.Repeat("é", 80)} {
		if got := execution.Clip(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if got := execution.ClipTo("añb", 2); got != "a..." {
		t.Errorf("a character is split: %q", got)
	}
}

// A request with many faults is not answered with all of them.
func TestManyFaults(t *testing.T) {
	all := make([]execution.FieldError, 1000)
	for i := range all {
		all[i] = execution.FieldError{Field: execution.FieldFiles, Index: i, Message: "is bad", Value: strings.Repeat("x", 10_000)}
	}
	text := (&execution.Error{Code: execution.Invalid, Fields: all}).Explain()
	if len(text) > 10_000 || !strings.HasSuffix(text, "and 980 more faults") {
		t.Errorf("%d bytes: ...%s", len(text), text[len(text)-40:])
	}
}
