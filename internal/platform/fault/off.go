//go:build !faults

package fault

// Point is a place at which a test can kill or slow down the process. It does nothing in this build.
func Point(string) {}

// Dropped says whether a test wants what happens here to be left out. It is false in this build.
func Dropped(string) bool { return false }
