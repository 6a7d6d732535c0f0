package runner

import (
	"fmt"
	"regexp"

	"github.com/vivarium-sandbox/vivarium/execution"
)

const (
	// maxItems is how many forms a run may display, of all values together.
	maxItems = 1000
	// displayTimes is how many copies there are of a form: as it came, with room to grow, and
	// as JSON, for which it is encoded and escaped.
	displayTimes = 6
)

// mediaType is what a form may be called (RFC 6838, section 4.2, without its bounds).
var mediaType = regexp.MustCompile(`^[\w!#$&^.+-]{1,100}/[\w!#$&^.+-]{1,100}$`)

// displays collects the values that a program displayed.
type displays struct {
	room   int // bytes that may still come
	items  int
	open   bool // a form comes in
	drop   bool // there is no memory for it, or its type is none
	values [][]execution.Representation
}

// begin notes that a form comes in.
func (d *displays) begin(head []byte) error {
	if d.items++; d.items > maxItems || len(head) == 0 {
		return fmt.Errorf("%w: too many displayed values, or a form without a head", errFrame)
	}
	d.open = true
	kind := string(head[1:])
	if d.drop = !mediaType.MatchString(kind); d.drop {
		return nil // the program chose it
	}
	if head[0] == '1' || len(d.values) == 0 {
		d.values = append(d.values, nil)
	}
	last := len(d.values) - 1
	d.values[last] = append(d.values[last], execution.Representation{Type: kind, Data: []byte{}})
	return nil
}

// add takes in some of the form that comes in. It charges the account. Where there is no
// memory for it, the form is dropped.
func (d *displays) add(data []byte, account *execution.Account) error {
	if d.room -= len(data); d.room < 0 || len(data) == 0 {
		return fmt.Errorf("%w: displayed values larger than allowed, or an empty piece of one", errFrame)
	}
	if d.drop {
		return nil
	}
	last := len(d.values) - 1
	forms := d.values[last]
	if d.drop = account.Take(int64(displayTimes*len(data))) != nil; d.drop {
		d.values[last] = forms[:len(forms)-1]
		if len(forms) == 1 {
			d.values = d.values[:last]
		}
		return nil
	}
	form := &forms[len(forms)-1]
	form.Data = append(form.Data, data...)
	return nil
}
