package execution

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// NewID returns an identifier that cannot be guessed: 128 random bits.
func NewID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// IsID reports whether a text has the form of an identifier of [NewID]. Only such a
// text is looked up or becomes part of a name.
func IsID(text string) bool {
	return len(text) == 32 && strings.Trim(text, "0123456789abcdef") == ""
}
