// Package ratelimit bounds how often a user, and an address, may ask for something: a request over HTTP, a WebSocket, an
// operation on one.
//
// Each has a rate that it may go on at for ever, and a burst that it may ask for at once and that fills up again at that
// rate (the generic cell rate algorithm, ADR 0014). Redis counts, by its own clock, so all processes count together.
//
// When Redis does not answer within a moment, each process counts for itself, with full bursts at first, until Redis is
// back: the limit is then as many times as high as there are processes, and nobody waits or is refused for Redis' sake.
// Nothing else is lost with Redis. What is kept there of an address is a digest, so that it does not show in a dump or a
// slow log; a digest of an IPv4 address is no secret to somebody who tries them all.
package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/run"
)

const (
	// retryEvery is how often Redis is tried again, by a request that does not wait for it.
	retryEvery = time.Second
	// maxCallers bounds what a process keeps in memory of each kind: some tens of bytes a caller.
	maxCallers = 100_000
)

// The least rate that is none, and the most of anything, which keep the arithmetic far from its ends.
const (
	minRate = 0.01
	most    = 1_000_000
)

// Config are the settings.
type Config struct {
	User         float64 `default:"25" help:"Requests a second that one user may go on making, over HTTP and on sockets together. 0 sets no limit."`
	UserBurst    int     `default:"250" help:"Requests that one user may make at once; it fills up again at that rate."`
	Address      float64 `default:"500" help:"HTTP requests and WebSockets a second from one address (of IPv6, one /64), behind which a whole office may be. 0 sets no limit. See --trusted-proxies."`
	AddressBurst int     `default:"5000" help:"HTTP requests and WebSockets from one address at once; it fills up again at that rate."`

	RedisWait time.Duration `default:"100ms" help:"How long a request waits for Redis to count it. Then each process counts by itself for a while."`
}

// Validate names the first setting that is wrong.
func (c *Config) Validate() error {
	for _, limit := range []struct {
		rate  *float64
		burst *int
	}{{&c.User, &c.UserBurst}, {&c.Address, &c.AddressBurst}} {
		rate, burst := *limit.rate, *limit.burst
		// Written so that what is not a number is refused.
		if rate != 0 && !(rate >= minRate && rate <= most) {
			return run.Invalid(limit.rate, "must be 0 or %v to %d, but is %v", minRate, most, rate)
		}
		if rate != 0 && (burst < 1 || burst > most) {
			return run.Invalid(limit.burst, "must be 1 to %d, but is %d", most, burst)
		}
		if rate != 0 && c.RedisWait <= 0 {
			return run.Invalid(&c.RedisWait, "must be more than 0, but is %v", c.RedisWait)
		}
	}
	return nil
}

// Caller is who asks. What is zero is not counted.
type Caller struct {
	User ids.ID
	Addr netip.Addr
}

// Limiter counts requests. It is safe for concurrent use.
type Limiter struct {
	user, address quota
	rdb           redis.UniversalClient
	log           *slog.Logger
	redisWait     time.Duration
	retryEvery    time.Duration

	// refused has until when a caller will be refused. Redis would say the same until then, and need not be asked: a
	// flood costs it no more than is allowed.
	refused *table
	// local counts while Redis does not.
	local *table
	// retryAt is when Redis may be tried again, in nanoseconds since 1970, and 0 while it counts.
	retryAt atomic.Int64
	probes  sync.WaitGroup

	refusals, counted metric.Int64Counter
}

// New returns a limiter. It does not wait for Redis, and does not use it when nothing is limited.
func New(cfg Config, rdb redis.UniversalClient, log *slog.Logger) *Limiter {
	meter := otel.Meter("chatapp.dev/services/graph/internal/ratelimit")
	counter := func(name, description string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit("{request}"), metric.WithDescription(description))
		if err != nil {
			otel.Handle(err)
		}
		return c
	}
	return &Limiter{
		user:       newQuota(cfg.User, cfg.UserBurst),
		address:    newQuota(cfg.Address, cfg.AddressBurst),
		rdb:        rdb,
		log:        log,
		redisWait:  cfg.RedisWait,
		retryEvery: retryEvery,
		refused:    newTable(maxCallers),
		local:      newTable(maxCallers),
		refusals:   counter("chatapp.rate_limit.refused", "Requests refused because there were too many, by whose limit it was."),
		counted:    counter("chatapp.rate_limit.counted", "Requests counted, by who counted them."),
	}
}

// Close waits for what is under way. Nothing may be asked of the limiter any more.
func (l *Limiter) Close() { l.probes.Wait() }

// Allow counts a request of a caller. When it is one too many, ok is false and retryAfter is how long the caller has to
// wait at least.
func (l *Limiter) Allow(ctx context.Context, c Caller) (retryAfter time.Duration, ok bool) {
	checks := l.checks(c)
	if len(checks) == 0 {
		return 0, true
	}
	now := time.Now()
	if wait, is := l.isRefused(ctx, now, checks); is {
		return wait, false
	}
	waits, ok := l.askOrNot(ctx, now, checks)
	counter := "redis"
	if !ok {
		waits, counter = l.countHere(now, checks), "process"
	}
	l.counted.Add(ctx, 1, metric.WithAttributes(attribute.String("by", counter)))
	for i, check := range checks {
		if waits[i] > 0 {
			l.refused.put(now, check.key, now.Add(waits[i]))
			l.countRefusal(ctx, check)
			retryAfter = max(retryAfter, waits[i])
		}
	}
	return retryAfter, retryAfter == 0
}

// Refused tells whether a request of a caller would be refused, without counting one, as far as this process knows by
// itself. It is for what costs much before the caller is known altogether.
func (l *Limiter) Refused(ctx context.Context, c Caller) (retryAfter time.Duration, refused bool) {
	return l.isRefused(ctx, time.Now(), l.checks(c))
}

func (l *Limiter) isRefused(ctx context.Context, now time.Time, checks []check) (wait time.Duration, refused bool) {
	for _, check := range checks {
		if until, ok := l.refused.get(check.key); ok && until.After(now) {
			l.countRefusal(ctx, check)
			wait = max(wait, until.Sub(now))
		}
	}
	return wait, wait > 0
}

func (l *Limiter) countRefusal(ctx context.Context, c check) {
	l.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("by", c.key.kind())))
}

// Error returns the error of a request that is refused for some time.
func Error(retryAfter time.Duration) *errs.Error {
	return errs.New(errs.RateLimited, fmt.Sprintf("too many requests; try again in %d s", Seconds(retryAfter)))
}

// Seconds are the whole seconds after which a request may succeed, for Retry-After.
func Seconds(retryAfter time.Duration) int { return int(math.Ceil(retryAfter.Seconds())) }

// check is one thing to count.
type check struct {
	key   key
	quota quota
}

// checks are what a caller's request is counted by.
func (l *Limiter) checks(c Caller) []check {
	var checks []check
	if c.User != (ids.ID{}) && l.user.limits() {
		checks = append(checks, check{userKey(c.User), l.user})
	}
	if c.Addr.IsValid() && l.address.limits() {
		checks = append(checks, check{addressKey(c.Addr), l.address})
	}
	return checks
}

// askOrNot asks Redis unless it was found not to answer.
func (l *Limiter) askOrNot(ctx context.Context, now time.Time, checks []check) (waits []time.Duration, ok bool) {
	if at := l.retryAt.Load(); at != 0 {
		if now.UnixNano() >= at && l.retryAt.CompareAndSwap(at, now.Add(l.retryEvery).UnixNano()) {
			l.probes.Go(func() { l.probe(ctx, checks) })
		}
		return nil, false
	}
	waits, err := l.ask(ctx, checks)
	if err == nil {
		return waits, true
	}
	// Those who were waiting at the same time find it out at the same time: one of them tells.
	if l.retryAt.CompareAndSwap(0, time.Now().Add(l.retryEvery).UnixNano()) {
		l.log.WarnContext(ctx, "Redis does not count requests; until it does, each process counts its own", "err", err)
	}
	return nil, false
}

// probe has Redis count a request that was counted here, too, to see whether it can.
func (l *Limiter) probe(ctx context.Context, checks []check) {
	if _, err := l.ask(ctx, checks); err != nil {
		return
	}
	if l.retryAt.Swap(0) != 0 {
		l.log.InfoContext(ctx, "Redis counts requests again")
	}
}

// countHere counts in memory.
func (l *Limiter) countHere(now time.Time, checks []check) []time.Duration {
	waits := make([]time.Duration, len(checks))
	for i, check := range checks {
		waits[i] = l.local.count(now, check)
	}
	return waits
}
