package httpapi

import (
	"strconv"
	"strings"
	"time"
)

// unixTime is a time in Unix seconds. In JSON it always has a fraction, as Python's floats
// have: a client that decodes it gets a float, also at a whole second.
type unixTime float64

// unixTimeOf returns a time in whole milliseconds, rounded down.
func unixTimeOf(t time.Time) unixTime { return unixTime(float64(t.UnixMilli()) / 1e3) }

// MarshalJSON implements [encoding/json.Marshaler].
func (t unixTime) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(t), 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return []byte(text), nil
}
