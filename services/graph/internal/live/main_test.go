package live

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// No goroutine of a subscriber may outlive it.
	goleak.VerifyTestMain(m)
}
