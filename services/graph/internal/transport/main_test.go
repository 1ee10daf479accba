package transport

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// No goroutine of a connection may outlive it.
	goleak.VerifyTestMain(m)
}
