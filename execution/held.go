package execution

// HeldError is the error of a session that another server holds, which is alive. A call belongs
// there: a second connection would end what that server has in progress.
type HeldError struct {
	Session string // its id
	Holder  string // the name of the other server
	Peer    string // the address at which servers reach it; it may be empty
}

// Error implements error.
func (e *HeldError) Error() string { return "session " + e.Session + " is held by server " + e.Holder }

// Unwrap returns the error for the client, if its call is not passed on.
func (e *HeldError) Unwrap() error {
	return &Error{Code: Unavailable, Message: "another server holds the session; try again"}
}
