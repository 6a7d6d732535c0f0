package filestore

import "testing"

// Changes during a recount override what the recount saw.
func TestRecount(t *testing.T) {
	var u usage
	store := func(id string, size int64) {
		if !u.take(id, size, 1000) {
			t.Fatalf("no room for %s", id)
		}
		u.add(id)
	}
	store("kept", 1)
	store("removed", 10)
	u.take("writing", 100, 1000)
	u.startRecount()
	store("new", 200)
	u.remove("removed")
	u.remove("removed") // as where a sweep and a client are at it together
	u.take("given up", 50, 1000)
	u.abandon("given up")
	u.endRecount(map[string]int64{"kept": 1, "removed": 10, "writing": 90, "others": 300})
	if u.used != 1+100+200+300 {
		t.Errorf("used: %d", u.used)
	}
	u.add("writing")
	u.remove("writing")
	u.startRecount()
	u.endRecount(nil)
	if u.used != 1+200+300 {
		t.Errorf("used in the end: %d", u.used)
	}
	for range 2 {
		u.remove("others")
	}
	u.remove("never seen") // stored by another server since
	store("others", 300)
	if u.take("too large", 500, 1000) || !u.take("fits", 499, 1000) {
		t.Error("the limit does not hold")
	}
}
