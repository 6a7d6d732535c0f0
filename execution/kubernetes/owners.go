package kubernetes

import "github.com/vivarium-sandbox/vivarium/execution"

// owners has the sessions that run, by owner and id. A pool may have 100,000, and each new session
// is counted: so no question goes through all of them.
type owners struct {
	sessions map[execution.Owner]map[string]*pod
	all      int
}

func newOwners() owners { return owners{sessions: make(map[execution.Owner]map[string]*pod)} }

// add adds a pod if it is a session that runs.
func (o *owners) add(p *pod) {
	if p.state != stateSession || !p.runs() {
		return
	}
	own := o.sessions[p.session.Owner]
	if own == nil {
		own = make(map[string]*pod)
		o.sessions[p.session.Owner] = own
	}
	own[p.session.ID] = p
	o.all++
}

// remove removes a pod that was added.
func (o *owners) remove(p *pod) {
	own := o.sessions[p.session.Owner]
	if own[p.session.ID] != p {
		return
	}
	delete(own, p.session.ID)
	o.all--
	if len(own) == 0 {
		delete(o.sessions, p.session.Owner)
	}
}

// count returns how many sessions an owner has that run, and how many there are, without those of
// some ids.
func (x *index) count(owner execution.Owner, except []string) (own, all int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	own, all = len(x.owners.sessions[owner]), x.owners.all
	for _, id := range except {
		p := x.sessions[id]
		if p == nil || !p.runs() {
			continue
		}
		all--
		if p.session.Owner == owner {
			own--
		}
	}
	return own, all
}

// owned returns the sessions of an owner that run.
func (x *index) owned(owner execution.Owner) []execution.SessionInfo {
	x.mu.Lock()
	defer x.mu.Unlock()
	own := x.owners.sessions[owner]
	found := make([]execution.SessionInfo, 0, len(own))
	for _, p := range own {
		found = append(found, p.session)
	}
	return found
}
