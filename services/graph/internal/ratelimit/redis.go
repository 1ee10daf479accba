package ratelimit

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// count is quota.count in Redis, by Redis' clock: all in microseconds, which a Lua number holds exactly. It returns how
// long to wait. A key lives no longer than it means something.
var count = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or '') or now
full = math.min(math.max(full, now), now + tolerance) + interval
local wait = full - now - tolerance
if wait > 0 then
	return math.ceil(wait)
end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return 0
`)

// ask has Redis count, in one round trip: in a cluster, one to each of the nodes that have the keys, at the same time. It
// takes no longer than l.redisWait, and goes on when the caller has gone: a request that was made counts.
func (l *Limiter) ask(ctx context.Context, checks []check) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.redisWait)
	defer cancel()
	replies := make([]*redis.Cmd, len(checks))
	send := func(do func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd) {
		pipe := l.rdb.Pipeline()
		for i, check := range checks {
			// A Redis that has restarted, or a node that is new, has yet to be told the script.
			if replies[i] == nil || redis.HasErrorPrefix(replies[i].Err(), "NOSCRIPT") {
				replies[i] = do(ctx, pipe, []string{check.key.redis()}, micros(check.quota.interval), micros(check.quota.tolerance))
			}
		}
		if pipe.Len() > 0 {
			// Each reply has its own error.
			_, _ = pipe.Exec(ctx)
		}
	}
	send(count.EvalSha)
	send(count.Eval)
	waits := make([]time.Duration, len(checks))
	for i, reply := range replies {
		wait, err := reply.Int64()
		if err != nil {
			return nil, err
		}
		waits[i] = time.Duration(wait) * time.Microsecond
	}
	return waits, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
