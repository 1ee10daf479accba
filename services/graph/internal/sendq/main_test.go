package sendq

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// No goroutine of a pool may outlive it and its connections.
	goleak.VerifyTestMain(m)
}
