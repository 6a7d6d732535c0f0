package config

import "testing"

// settings.txt describes settings that exist, and nothing else.
func TestDescriptionsAreOfSettings(t *testing.T) {
	settings := byName()
	for name := range descriptions() {
		if _, ok := settings[name]; !ok {
			t.Errorf("settings.txt describes %q, which is not a setting", name)
		}
	}
}
