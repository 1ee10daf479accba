package ratelimit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/redistest"
)

// silent is a logger for go-redis: that Redis is down is the tests' own doing.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	// No goroutine of a limiter may outlive it. One of go-redis looks once a second whether it is still wanted.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// slow is a quota that gives nothing back while a test lasts.
var slow = Config{User: minRate, UserBurst: 5, Address: minRate, AddressBurst: 20}

// limiter returns a limiter that has all the time in the world for a Redis that answers at all.
func limiter(t testing.TB, cfg Config, addr string) *Limiter {
	t.Helper()
	return limiterAt(t, cfg, "redis://"+addr+"/0")
}

func limiterAt(t testing.TB, cfg Config, url string) *Limiter {
	t.Helper()
	rdb, err := redisclient.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	l := New(cfg, rdb, slog.New(slog.DiscardHandler))
	l.redisWait = time.Minute
	t.Cleanup(func() {
		l.Close()
		_ = rdb.Close()
	})
	return l
}

// nobody is where no Redis listens.
const nobody = "127.0.0.1:1"

// limiters has one for each way of counting.
func limiters(t *testing.T, cfg Config) map[string]*Limiter {
	t.Helper()
	return map[string]*Limiter{
		"by Redis":       limiter(t, cfg, redistest.Start(t).Addr),
		"by the process": limiter(t, cfg, nobody),
	}
}

// allowed is how many of n requests pass.
func allowed(t *testing.T, l *Limiter, c Caller, n int) int {
	t.Helper()
	passed := 0
	for range n {
		wait, ok := l.Allow(t.Context(), c)
		if ok != (wait == 0) || wait < 0 {
			t.Fatalf("allowed %v with %v to wait", ok, wait)
		}
		if ok {
			passed++
		}
	}
	return passed
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestABurstPassesAndNoMore(t *testing.T) {
	for name, l := range limiters(t, slow) {
		t.Run(name, func(t *testing.T) {
			ada := Caller{User: ids.New()}
			if got := allowed(t, l, ada, 10); got != 5 {
				t.Errorf("%d of a burst of 5 passed", got)
			}
			wait, ok := l.Allow(t.Context(), ada)
			if ok || wait > 100*time.Second || wait < 50*time.Second {
				t.Errorf("at one in 100 s the next: %v after %v", ok, wait)
			}
			if got := allowed(t, l, Caller{User: ids.New()}, 10); got != 5 {
				t.Errorf("somebody else: %d of 5", got)
			}
		})
	}
}

func TestAnAddressIsCountedWhoeverAsks(t *testing.T) {
	for name, l := range limiters(t, slow) {
		t.Run(name, func(t *testing.T) {
			got := 0
			for range 10 {
				got += allowed(t, l, Caller{User: ids.New(), Addr: addr("203.0.113.7")}, 3)
			}
			if got != 20 {
				t.Errorf("%d of a burst of 20 passed", got)
			}
			if got := allowed(t, l, Caller{Addr: addr("203.0.113.7")}, 1); got != 0 {
				t.Error("nobody in particular passed")
			}
			for _, test := range []struct {
				addr      string
				ask, want int
			}{
				{"203.0.113.8", 1, 1},
				{"2001:db8::1", 20, 20},
				{"2001:db8::2:0:0:1", 1, 0}, // Of the same /64.
				{"2001:db8:0:1::1", 1, 1},
			} {
				if got := allowed(t, l, Caller{Addr: addr(test.addr)}, test.ask); got != test.want {
					t.Errorf("%s: %d of %d passed, want %d", test.addr, got, test.ask, test.want)
				}
			}
		})
	}
}

func TestProcessesCountTogether(t *testing.T) {
	server := redistest.Start(t)
	one, other := limiter(t, slow, server.Addr), limiter(t, slow, server.Addr)
	ada := Caller{User: ids.New(), Addr: addr("203.0.113.7")}
	if got := allowed(t, one, ada, 3) + allowed(t, other, ada, 3); got != 5 {
		t.Errorf("%d of a burst of 5 passed", got)
	}
}

func TestWhoeverWaitsPasses(t *testing.T) {
	for name, l := range limiters(t, Config{User: 50, UserBurst: 2}) {
		t.Run(name, func(t *testing.T) {
			ada := Caller{User: ids.New()}
			for range 20 {
				wait, ok := l.Allow(t.Context(), ada)
				for n := 0; ok; n++ {
					if n > 1000 {
						t.Fatal("nobody is refused")
					}
					wait, ok = l.Allow(t.Context(), ada)
				}
				if wait > 20*time.Millisecond {
					t.Fatalf("at 50 a second one waits %v", wait)
				}
				time.Sleep(wait)
				if _, ok := l.Allow(t.Context(), ada); !ok {
					t.Fatal("having waited as long as was said, one is refused")
				}
			}
		})
	}
}

func TestTheRateHoldsWhateverIsAsked(t *testing.T) {
	const rate, burst = 200, 10
	server := redistest.Start(t)
	cfg := Config{User: rate, UserBurst: burst}
	processes := []*Limiter{limiter(t, cfg, server.Addr), limiter(t, cfg, server.Addr)}
	ada := Caller{User: ids.New()}
	begun := time.Now()
	var passed atomic.Int64
	var asking sync.WaitGroup
	for i := range 4 {
		asking.Go(func() {
			for time.Since(begun) < 300*time.Millisecond {
				if _, ok := processes[i%2].Allow(context.Background(), ada); ok {
					passed.Add(1)
				}
			}
		})
	}
	asking.Wait()
	if most := burst + 1 + int64(rate*time.Since(begun).Seconds()); passed.Load() > most {
		t.Errorf("%d passed in %v, where %d may", passed.Load(), time.Since(begun), most)
	}
	if passed.Load() < burst {
		t.Errorf("only %d passed of a burst of %d", passed.Load(), burst)
	}
}

// TestNoWindowHasMoreThanBurstAndRate tries the algorithm on clocks of its own.
func TestNoWindowHasMoreThanBurstAndRate(t *testing.T) {
	for range 200 {
		rate, burst := math.Exp(rand.Float64()*12-4), 1+rand.IntN(50)
		q := newQuota(rate, burst)
		now, full := time.Unix(1_700_000_000, 0), time.Time{}
		var passed []time.Time
		for range 500 {
			now = now.Add(time.Duration(rand.ExpFloat64() * float64(q.interval) * 2 * rand.Float64()))
			var wait time.Duration
			if full, wait = q.count(now, full); wait == 0 {
				passed = append(passed, now)
			} else if _, wait := q.count(now.Add(wait), full); wait > 0 {
				t.Fatalf("%v/s, %d at once: refused after the time that it was to wait", rate, burst)
			}
		}
		for i, first := range passed {
			for j := i; j < len(passed); j++ {
				if most := float64(burst) + passed[j].Sub(first).Seconds()*rate*(1+1e-6) + 1e-6; float64(j-i+1) > most {
					t.Fatalf("%v/s, %d at once: %d in %v", rate, burst, j-i+1, passed[j].Sub(first))
				}
			}
		}
	}
}

func TestAClockThatWasSetBackLocksNobodyOut(t *testing.T) {
	q := newQuota(1, 5)
	now := time.Unix(1_700_000_000, 0)
	full, wait := q.count(now, now.Add(time.Hour))
	if wait > time.Second {
		t.Errorf("one waits %v", wait)
	}
	if _, wait := q.count(now.Add(wait), full); wait != 0 {
		t.Errorf("and %v again", wait)
	}
}

func TestWithoutLimitsNobodyIsAsked(t *testing.T) {
	l := New(Config{}, nil, slog.New(slog.DiscardHandler))
	if got := allowed(t, l, Caller{User: ids.New(), Addr: addr("203.0.113.7")}, 1000); got != 1000 {
		t.Errorf("%d of 1000 passed", got)
	}
	l = New(slow, nil, slog.New(slog.DiscardHandler))
	if got := allowed(t, l, Caller{}, 1000); got != 1000 {
		t.Errorf("%d of 1000 passed of a caller of whom nothing is known", got)
	}
}

func TestWhatRedisKeeps(t *testing.T) {
	server := redistest.Start(t)
	l := limiter(t, slow, server.Addr)
	allowed(t, l, Caller{User: ids.New(), Addr: addr("203.0.113.7")}, 3)
	keys, err := l.rdb.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 2 {
		t.Fatalf("%q, %v", keys, err)
	}
	for _, key := range keys {
		if strings.Contains(key, "203.0.113.7") || !strings.HasPrefix(key, "chatapp:rate:") {
			t.Errorf("a key is named %q", key)
		}
		// Three requests at one in 100 s.
		if ttl := l.rdb.PTTL(t.Context(), key).Val(); ttl < 200*time.Second || ttl > 300*time.Second {
			t.Errorf("%s lives for %v", key, ttl)
		}
	}
}

func TestARedisThatForgotTheScriptIsToldAgain(t *testing.T) {
	server := redistest.Start(t)
	l := limiter(t, slow, server.Addr)
	ada := Caller{User: ids.New(), Addr: addr("203.0.113.7")}
	got := allowed(t, l, ada, 2)
	if err := l.rdb.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got += allowed(t, l, ada, 10); got != 5 {
		t.Errorf("%d of 5 passed", got)
	}
	if l.retryAt.Load() != 0 {
		t.Error("Redis was given up")
	}
}

func TestARefusalIsRemembered(t *testing.T) {
	server := redistest.Start(t)
	l := limiter(t, slow, server.Addr)
	here := Caller{Addr: addr("203.0.113.7")}
	if _, refused := l.Refused(t.Context(), here); refused {
		t.Error("refused before anything was asked")
	}
	allowed(t, l, here, 21)
	// Redis would let everybody pass now, and is not asked.
	if err := l.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if wait, refused := l.Refused(t.Context(), here); !refused || wait <= 0 {
		t.Errorf("%v, %v", wait, refused)
	}
	if got := allowed(t, l, Caller{User: ids.New(), Addr: here.Addr}, 5); got != 0 {
		t.Errorf("%d passed", got)
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func TestWithoutRedisTheProcessCountsUntilItIsBack(t *testing.T) {
	server := redistest.Start(t)
	l := limiter(t, slow, server.Addr)
	logged := &lines{}
	l.log = slog.New(slog.NewTextHandler(logged, nil))
	l.retryEvery = 10 * time.Millisecond
	allowed(t, l, Caller{User: ids.New()}, 1)

	server.Stop()
	var asking sync.WaitGroup
	for range 10 {
		asking.Go(func() {
			if _, ok := l.Allow(context.Background(), Caller{User: ids.New()}); !ok {
				t.Error("refused for Redis' sake")
			}
		})
	}
	asking.Wait()
	if got := allowed(t, l, Caller{User: ids.New()}, 10); got != 5 {
		t.Errorf("%d of 5 passed", got)
	}
	if n := logged.count("level=WARN"); n != 1 {
		t.Errorf("the loss was told %d times", n)
	}

	server.Restart()
	deadline := time.Now().Add(time.Minute)
	for l.retryAt.Load() != 0 {
		if time.Now().After(deadline) {
			t.Fatal("Redis is back and is not asked")
		}
		allowed(t, l, Caller{User: ids.New()}, 1)
		time.Sleep(time.Millisecond)
	}
	l.Close()
	if n := logged.count("level=INFO"); n != 1 {
		t.Errorf("the return was told %d times", n)
	}
	other := limiter(t, slow, server.Addr)
	ada := Caller{User: ids.New()}
	if got := allowed(t, l, ada, 3) + allowed(t, other, ada, 3); got != 5 {
		t.Errorf("%d of 5 passed: the processes do not count together again", got)
	}
}

func TestAClusterCountsAndLosesAPrimary(t *testing.T) {
	cluster := redistest.StartCluster(t)
	one, other := limiterAt(t, slow, cluster.URL), limiterAt(t, slow, cluster.URL)
	for _, l := range []*Limiter{one, other} {
		l.redisWait, l.retryEvery = time.Second, 10*time.Millisecond
	}
	// passed is how many of six requests of somebody new pass. The two keys of most callers are on different nodes.
	passed := func() int {
		c := Caller{User: ids.New(), Addr: addr(fmt.Sprintf("2001:db8:%x:%x::", rand.IntN(1<<16), rand.IntN(1<<16)))}
		return allowed(t, one, c, 3) + allowed(t, other, c, 3)
	}
	for range 30 {
		if got := passed(); got != 5 {
			t.Errorf("%d of 5 passed", got)
		}
	}
	primary, err := one.rdb.(*redis.ClusterClient).MasterForKey(t.Context(), userKey(ids.New()).redis())
	if err != nil {
		t.Fatal(err)
	}
	cluster.Kill(primary.Options().Addr)
	// Meanwhile nobody is refused who would not be, and some count by themselves.
	deadline := time.Now().Add(time.Minute)
	for together := 0; together < 30; {
		switch got := passed(); got {
		case 5:
			together++
		case 6:
			together = 0
		default:
			t.Fatalf("%d of 5 passed", got)
		}
		if time.Now().After(deadline) {
			t.Fatal("the processes do not count together again")
		}
	}
}

func TestASilentRedisIsAwaitedOnce(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l := limiter(t, slow, listener.Addr().String())
	l.redisWait, l.retryEvery = time.Second, time.Hour
	begun := time.Now()
	if got := allowed(t, l, Caller{User: ids.New(), Addr: addr("203.0.113.7")}, 50); got != 5 {
		t.Errorf("%d of 5 passed", got)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("50 requests took %v, of which one was to wait for a second", took)
	}
}

func TestACallerWhoLeavesCountsAndBreaksNothing(t *testing.T) {
	server := redistest.Start(t)
	l := limiter(t, slow, server.Addr)
	gone, leave := context.WithCancel(t.Context())
	leave()
	ada := Caller{User: ids.New()}
	for range 3 {
		if _, ok := l.Allow(gone, ada); !ok {
			t.Error("refused")
		}
	}
	if got := allowed(t, l, ada, 5); got != 2 {
		t.Errorf("%d of the 2 that were left passed", got)
	}
	if l.retryAt.Load() != 0 {
		t.Error("Redis was given up because a caller had gone")
	}
}

func TestTheMemoryIsBounded(t *testing.T) {
	tab := newTable(100)
	now := time.Now()
	newKey := func() key { return userKey(ids.New()) }
	for range 10_000 {
		tab.put(now, newKey(), now.Add(time.Hour))
		if len(tab.moments) > 100 {
			t.Fatalf("%d entries where 100 may be", len(tab.moments))
		}
	}
	if len(tab.moments) < 90 {
		t.Errorf("only %d entries are left of 100", len(tab.moments))
	}
	// Those that are worth nothing any more go by themselves.
	later := now.Add(2 * time.Hour)
	for range 1000 {
		tab.put(later, newKey(), later)
	}
	if len(tab.moments) > 20 {
		t.Errorf("%d entries that are worth nothing", len(tab.moments))
	}
}

func TestSettingsThatAreWrong(t *testing.T) {
	for name, test := range map[string]struct {
		cfg Config
		ok  bool
	}{
		"no limits":       {Config{}, true},
		"the slowest":     {slow, true},
		"negative rate":   {Config{User: -1, UserBurst: 1}, false},
		"no number":       {Config{User: math.NaN(), UserBurst: 1}, false},
		"infinite":        {Config{Address: math.Inf(1), AddressBurst: 1}, false},
		"hardly any":      {Config{User: minRate / 2, UserBurst: 1}, false},
		"no burst":        {Config{User: 1}, false},
		"negative burst":  {Config{Address: 1, AddressBurst: -1}, false},
		"too large":       {Config{Address: 1, AddressBurst: most + 1}, false},
		"burst of no use": {Config{UserBurst: -1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			test.cfg.RedisWait = time.Second
			if err := test.cfg.Validate(); (err == nil) != test.ok {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}

func TestNoTimeForRedisIsWrong(t *testing.T) {
	cfg := slow
	if err := cfg.Validate(); err == nil {
		t.Error("no time for Redis is accepted")
	}
}

func TestTheRefusal(t *testing.T) {
	err := Error(1001 * time.Millisecond)
	if errs.KindOf(err) != errs.RateLimited || err.Message != "too many requests; try again in 2 s" {
		t.Errorf("%v: %s", errs.KindOf(err), err.Message)
	}
	if got := Seconds(time.Microsecond); got != 1 {
		t.Errorf("Retry-After: %d", got)
	}
}

// BenchmarkAllow is what a request pays.
func BenchmarkAllow(b *testing.B) {
	cfg := Config{User: 1000, UserBurst: 1_000_000, Address: 1000, AddressBurst: 1_000_000}
	for name, redisAddr := range map[string]string{"redis": redistest.Start(b).Addr, "process": nobody} {
		b.Run(name, func(b *testing.B) {
			l := limiter(b, cfg, redisAddr)
			l.retryEvery = time.Hour
			c := Caller{User: ids.New(), Addr: addr("203.0.113.7")}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.Allow(context.Background(), c)
				}
			})
		})
	}
}
