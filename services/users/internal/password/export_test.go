package password

import "testing"

// Occupy takes a slot, as a hash that is being computed does.
func (h *Hasher) Occupy(t *testing.T) (release func()) {
	t.Helper()
	release, err := h.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return release
}
