package hardening_test

import (
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/hardening"
)

func TestUsers(t *testing.T) {
	var users hardening.Users
	seen := make(map[int]bool)
	for range hardening.UserCount {
		user := users.Take()
		if seen[user] || user < hardening.FirstUser || user >= hardening.FirstUser+hardening.UserCount {
			t.Fatalf("user %d was assigned twice, or is out of range", user)
		}
		seen[user] = true
	}
	users.Release(hardening.FirstUser + 7)
	if user := users.Take(); user != hardening.FirstUser+7 {
		t.Errorf("user %d was assigned, not the only free one", user)
	}
	if user := users.Take(); !seen[user] {
		t.Errorf("user %d was assigned when all were taken", user)
	}
}
