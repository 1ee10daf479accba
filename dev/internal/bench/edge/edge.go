// Package edge measures what subscriptions cost the server that clients are connected to: memory and idle time, deliveries,
// and what clients that do not read do to the others. It measures graph in the whole system, a server made of gqlgen's
// stock parts, and gorilla/websocket without anything on top, in the same run and by the same clients.
//
// Each server is a process of its own that is looked at from outside, in /proc. Its processor time is its own and what
// the kernel does on its behalf, which includes the clients' side of the loopback interface; what MariaDB, the other
// services and this process take is not counted, but takes its share of the machine. The clients are as cheap as they
// can be made: one goroutine, one system call a read, no JSON.
package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/seed"
)

// Sizes say how much is measured. [Default] has those of the goals.
type Sizes struct {
	// Idle is how many idle clients there are, each of a user of its own. IdleTime is how long they are watched, once
	// IdleSettle has passed.
	Idle                 int
	IdleSettle, IdleTime time.Duration
	// Subscribers is how many clients of one user get the same events.
	Subscribers int
	// Window is how many events are under way at saturation: as soon as the last client has one, another is published.
	Window int
	// Rounds is how often saturation is measured, for Round each time, once WarmUp has passed.
	Rounds        int
	WarmUp, Round time.Duration
	// Stalled is how many of the subscribers read nothing. StalledRounds is how often that is measured, for StalledTime
	// each time, in turns with as long without them. The last of the stalled is waited for until StalledLimit, once.
	Stalled                   int
	StalledRounds             int
	StalledTime, StalledLimit time.Duration
	// Pace is the number of events a second meanwhile. No server is saturated by it.
	Pace int
}

// Default returns the sizes for which the goals are.
func Default(rounds int, round time.Duration) Sizes {
	return Sizes{
		Idle: 3000, IdleSettle: 5 * time.Second, IdleTime: 20 * time.Second,
		Subscribers: 1000, Window: 4,
		Rounds: rounds, WarmUp: time.Second, Round: round,
		Stalled: 100, StalledRounds: min(rounds, 3), StalledTime: 10 * time.Second, StalledLimit: 30 * time.Second, Pace: 10,
	}
}

// Options says where and how to measure.
type Options struct {
	// Stack is a system with a graph to spare: a further one is started beside it.
	Stack *harness.Stack
	// Seed makes people.
	Seed func(ctx context.Context, prefix string, people int) ([]seed.User, error)
	// Dir gets the logs of the other servers.
	Dir   string
	Sizes Sizes
	// Progress is shown what is being measured.
	Progress io.Writer
}

// bench is one run.
type bench struct {
	opts   Options
	sizes  Sizes
	redis  *redis.Client
	report *Report
	fleets int
}

// eventsPerFleet are the numbers that the events of one fleet can have.
const eventsPerFleet = 10_000_000

func (b *bench) show(format string, args ...any) { fmt.Fprintf(b.opts.Progress, format+"\n", args...) }

// Run measures.
func Run(ctx context.Context, opts Options) (_ *Report, err error) {
	b := &bench{opts: opts, sizes: opts.Sizes, report: newReport(opts.Sizes)}
	const others = 1000 // Files that are not the clients': generously.
	if err := raiseFiles(max(b.sizes.Idle, b.sizes.Subscribers) + others); err != nil {
		return nil, err
	}
	programs := opts.Stack.Programs()
	b.show("edge: building the servers to compare with")
	for _, name := range []string{"stock", "bare"} {
		if err := programs.Add(ctx, "dev", "./internal/bench/edge/rivals/"+name); err != nil {
			return nil, err
		}
	}
	b.redis = redis.NewClient(&redis.Options{Addr: opts.Stack.Redis.Addr()})
	defer func() { err = errors.Join(err, b.redis.Close()) }()
	b.show("edge: making %d people", publishers+b.sizes.Idle)
	people, err := opts.Seed(ctx, "edge-", publishers+b.sizes.Idle)
	if err != nil {
		return nil, err
	}
	own, err := newOurs(opts.Stack, people)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, own.conn.Close()) }()
	stock, bare := newStock(programs, opts.Dir, b.redis), newBare(programs, opts.Dir, b.redis, false)
	joined := newBare(programs, opts.Dir, b.redis, true)
	contestants := []contestant{stock, bare, own}
	pushed := []contestant{stock, bare, joined, own}
	for _, c := range pushed {
		b.report.of(c.name()) // In this order.
	}

	for _, c := range contestants {
		if err := b.measureIdle(ctx, c); err != nil {
			return nil, fmt.Errorf("idle clients of %s: %w", c.name(), err)
		}
	}
	for _, c := range pushed {
		if err := c.start(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.stop()) }()
	}
	for round := range b.sizes.Rounds {
		for _, c := range pushed {
			if err := b.measureSaturation(ctx, c, round+1); err != nil {
				return nil, fmt.Errorf("saturation of %s: %w", c.name(), err)
			}
		}
	}
	for _, c := range contestants {
		if err := b.measureStalled(ctx, c); err != nil {
			return nil, fmt.Errorf("stalled clients of %s: %w", c.name(), err)
		}
	}
	return b.report, nil
}

// connect opens clients of users and returns once they are subscribed.
func (b *bench) connect(ctx context.Context, c contestant, users []int) (*fleet, error) {
	b.fleets++
	f, err := newFleet(c.address(), b.fleets*eventsPerFleet)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.open(ctx, users, c.greet)); err != nil {
		f.close()
		return nil, err
	}
	if err := f.settle(ctx, c.publish); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// usage is what a server and Redis have taken up to a moment.
type usage struct {
	memory, redisMemory int64
	cpu, redisCPU       time.Duration
}

func (b *bench) usage(ctx context.Context, c contestant) (u usage, err error) {
	if u.memory, err = memoryOf(c.pid()); err != nil {
		return u, err
	}
	if u.redisMemory, err = redisMemory(ctx, b.redis); err != nil {
		return u, err
	}
	if u.cpu, err = cpuOf(c.pid()); err != nil {
		return u, err
	}
	u.redisCPU, err = cpuOf(b.opts.Stack.Redis.Pid())
	return u, err
}

// measureIdle connects clients, each of another user, and lets them be.
func (b *bench) measureIdle(ctx context.Context, c contestant) (err error) {
	if err := c.start(ctx); err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			err = errors.Join(err, c.stop())
		}
	}()
	empty, err := b.usage(ctx, c)
	if err != nil {
		return err
	}
	users := everybody(b.sizes.Idle)
	if c.knowsUsers() {
		for i := range users {
			users[i] = i
		}
	}
	begun := time.Now()
	f, err := b.connect(ctx, c, users)
	if err != nil {
		return err
	}
	defer f.close()
	b.show("edge: %s: %d clients are subscribed, after %v", c.name(), len(users), time.Since(begun).Round(time.Millisecond))
	if err := f.sleep(ctx, b.sizes.IdleSettle); err != nil {
		return err
	}
	before, err := b.usage(ctx, c)
	if err != nil {
		return err
	}
	if err := f.sleep(ctx, b.sizes.IdleTime); err != nil {
		return err
	}
	after, err := b.usage(ctx, c)
	if err != nil {
		return err
	}
	f.halt()
	running = false
	goroutines, err := c.count()
	if err != nil {
		return err
	}
	each := func(bytes int64) float64 { return float64(max(0, bytes)) / 1024 / float64(len(users)) }
	share := func(cpu time.Duration) float64 { return 100 * cpu.Seconds() / b.sizes.IdleTime.Seconds() }
	figures := b.report.of(c.name())
	figures.Idle = &Idle{
		KiB:          each(after.memory - empty.memory),
		KiBInRedis:   each(after.redisMemory - empty.redisMemory),
		CPU:          share(after.cpu - before.cpu),
		CPUOfRedis:   share(after.redisCPU - before.redisCPU),
		Goroutines:   float64(goroutines) / float64(len(users)),
		PayloadBytes: f.size(),
	}
	b.show("edge: %s: idle: %.1f KiB a client and %.1f in Redis, %.1f %% of a core and %.1f %% in Redis, %.2f goroutines a client",
		c.name(), figures.Idle.KiB, figures.Idle.KiBInRedis, figures.Idle.CPU, figures.Idle.CPUOfRedis, figures.Idle.Goroutines)
	return nil
}

// everybody are clients of the same user.
func everybody(clients int) []int { return make([]int, clients) }

// measureSaturation publishes as fast as the server delivers.
func (b *bench) measureSaturation(ctx context.Context, c contestant, round int) error {
	f, err := b.connect(ctx, c, everybody(b.sizes.Subscribers))
	if err != nil {
		return err
	}
	defer f.close()
	var s Saturation
	publishing, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for worker := range b.sizes.Window {
		group.Go(func() error {
			for publishing.Err() == nil {
				number, e := f.announce()
				// What has begun is carried to its end, so that nothing of it is left over for the next round.
				if err := c.publish(ctx, worker, 0, number); err != nil {
					return err
				}
				if err := f.await(ctx, e); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() (err error) {
		defer cancel()
		if err := f.sleep(ctx, b.sizes.WarmUp); err != nil {
			return err
		}
		s, err = b.watchSaturation(ctx, c, f)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	figures := b.report.of(c.name())
	figures.Saturation = append(figures.Saturation, s)
	b.show("edge: %s: saturation, round %d: %.0f deliveries a CPU second, %.0f/s, p99 %.1f ms; the clients took %.0f %% of a core",
		c.name(), round, s.PerCPUSecond, s.PerSecond, s.P99, s.ClientsCPU)
	return nil
}

func (b *bench) watchSaturation(ctx context.Context, c contestant, f *fleet) (s Saturation, err error) {
	begun, delivered := time.Now(), f.record()
	cpu, err := cpuOf(c.pid())
	if err != nil {
		return s, err
	}
	own, err := ownCPU()
	if err != nil {
		return s, err
	}
	if err := f.sleep(ctx, b.sizes.Round); err != nil {
		return s, err
	}
	cpuAfter, err := cpuOf(c.pid())
	if err != nil {
		return s, err
	}
	ownAfter, err := ownCPU()
	if err != nil {
		return s, err
	}
	deliveredAfter, took := f.recorded()
	elapsed := time.Since(begun).Seconds()
	if len(took) == 0 || cpuAfter == cpu {
		return s, errors.New("nothing was delivered, or no time was taken for it")
	}
	count := float64(deliveredAfter - delivered)
	return Saturation{
		PerCPUSecond: count / (cpuAfter - cpu).Seconds(),
		PerSecond:    count / elapsed,
		P50:          milliseconds(quantile(took, 0.5)),
		P99:          milliseconds(quantile(took, 0.99)),
		ClientsCPU:   100 * (ownAfter - own).Seconds() / elapsed,
	}, nil
}

// measureStalled publishes at a steady pace, in turns without and with clients that do not read.
func (b *bench) measureStalled(ctx context.Context, c contestant) error {
	healthy, err := b.connect(ctx, c, everybody(b.sizes.Subscribers-b.sizes.Stalled))
	if err != nil {
		return err
	}
	defer healthy.close()
	for round := range b.sizes.StalledRounds {
		without, err := b.steady(ctx, c, healthy, never, b.sizes.StalledTime)
		if err != nil {
			return err
		}
		s, err := b.withStalled(ctx, c, healthy, round == 0)
		if err != nil {
			return err
		}
		s.P99Without = milliseconds(without)
		s.Ratio = s.P99With / s.P99Without
		figures := b.report.of(c.name())
		figures.Stalled = append(figures.Stalled, s)
		b.show("edge: %s: stalled, round %d: %s; the others' p99 %.1f ms with them, %.1f ms without",
			c.name(), round+1, s.evicted(), s.P99With, s.P99Without)
	}
	return nil
}

// withStalled is the half of a round in which clients do not read. The last of them is waited for, if that is asked for.
func (b *bench) withStalled(ctx context.Context, c contestant, healthy *fleet, toTheLast bool) (s Stalled, err error) {
	stalled, err := b.connect(ctx, c, everybody(b.sizes.Stalled))
	if err != nil {
		return s, err
	}
	defer stalled.close()
	watched := watchEvictions(c.address(), stalled.stall())
	defer watched.end()
	p99, err := b.steady(ctx, c, healthy, never, b.sizes.StalledTime)
	if err != nil {
		return s, err
	}
	s.P99With = milliseconds(p99)
	if rest := time.Until(watched.begun.Add(b.sizes.StalledLimit)); toTheLast && rest > 0 {
		// Life goes on, but is not part of the comparison.
		if _, err := b.steady(ctx, c, healthy, watched.over, rest); err != nil {
			return s, err
		}
	}
	// The last event was published before the time was over, and what has happened since then was not looked at yet.
	if err := healthy.sleep(ctx, time.Until(watched.begun.Add(b.sizes.StalledTime+lookEvery))); err != nil {
		return s, err
	}
	s.Stalled, s.Within = b.sizes.Stalled, b.sizes.StalledTime.Seconds()
	return s, watched.count(&s)
}

func never() bool { return false }

// steady publishes at the pace for a time, or until it is over sooner, and returns the 99th percentile of how long
// deliveries took.
func (b *bench) steady(ctx context.Context, c contestant, f *fleet, over func() bool, length time.Duration) (time.Duration, error) {
	group, publishing := errgroup.WithContext(ctx)
	group.SetLimit(publishers)
	f.record()
	interval := time.Second / time.Duration(b.sizes.Pace)
	begun := time.Now()
	for n := 0; time.Duration(n)*interval < length && !over(); n++ {
		if err := f.sleep(publishing, time.Until(begun.Add(time.Duration(n)*interval))); err != nil {
			return 0, errors.Join(group.Wait(), err)
		}
		group.Go(func() error {
			number, e := f.announce()
			if err := c.publish(publishing, n%publishers, 0, number); err != nil {
				return err
			}
			return f.await(publishing, e)
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	_, took := f.recorded()
	if len(took) == 0 {
		return 0, nil
	}
	return quantile(took, 0.99), nil
}

// quantile returns the value below which a share of the sorted values lies.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

// median returns the middle one of some values, or 0 of none.
func median[T cmp.Ordered](values []T) (middle T) {
	if len(values) == 0 {
		return middle
	}
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
