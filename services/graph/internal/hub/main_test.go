package hub

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// silent is a logger for go-redis: that Redis is down is the tests' own doing.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	// No goroutine of a hub may outlive it.
	goleak.VerifyTestMain(m)
}
