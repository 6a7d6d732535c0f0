package walls_test

import (
	"testing"

	"github.com/vivarium-sandbox/vivarium/execution/walls"
)

func TestUsers(t *testing.T) {
	var users walls.Users
	seen := make(map[int]bool)
	for range walls.UserCount {
		user := users.Take()
		if seen[user] || user < walls.FirstUser || user >= walls.FirstUser+walls.UserCount {
			t.Fatalf("user %d is given twice, or out of range", user)
		}
		seen[user] = true
	}
	users.Release(walls.FirstUser + 7)
	if user := users.Take(); user != walls.FirstUser+7 {
		t.Errorf("user %d is given, not the only one that is free", user)
	}
	if user := users.Take(); !seen[user] {
		t.Errorf("user %d is given when all are taken", user)
	}
}
