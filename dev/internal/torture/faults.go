package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"chatapp.dev/dev/internal/harness"
)

// part is what a fault occupies while it lasts: two faults at once never strike the same part.
type part string

const (
	users    part = "users"
	messages part = "messages"
	graph    part = "graph"
	redis    part = "Redis"
	mysql    part = "MySQL"
	clients  part = "clients"
)

// fault is a way to strike a running system.
type fault struct {
	name string
	part part
	// strike strikes, and returns when what it broke works again. It says what it does as it does it.
	strike func(ctx context.Context, d *demolition, rng *rand.Rand) error
}

// faults are all that there are. A run strikes with each of them at least once.
var faults = []fault{
	{"kill-users", users, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.kill(ctx, pick(rng, d.stack.Users), rng)
	}},
	{"kill-messages", messages, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.kill(ctx, pick(rng, d.stack.Messages), rng)
	}},
	{"kill-graph", graph, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.kill(ctx, pick(rng, d.stack.Graphs), rng)
	}},
	{"stop-users", users, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.stop(ctx, pick(rng, d.stack.Users))
	}},
	{"stop-messages", messages, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.stop(ctx, pick(rng, d.stack.Messages))
	}},
	{"stop-graph", graph, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.stop(ctx, pick(rng, d.stack.Graphs))
	}},
	{"pause-messages", messages, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		p := pick(rng, d.stack.Messages)
		return d.pause(ctx, p.Name, p.Pid(), rng)
	}},
	{"pause-graph", graph, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		p := pick(rng, d.stack.Graphs)
		return d.pause(ctx, p.Name, p.Pid(), rng)
	}},
	{"pause-redis", redis, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.pause(ctx, "Redis", d.stack.Redis.Pid(), rng)
	}},
	{"pause-mysql", mysql, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.pause(ctx, "MySQL", d.stack.MySQL.Pid(), rng)
	}},
	{"stop-redis", redis, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		gone := between(rng, 2*time.Second, 6*time.Second)
		d.say("stop Redis for %v", gone)
		if err := d.stack.Redis.Stop(); err != nil {
			return err
		}
		sleep(ctx, gone)
		return d.stack.Redis.Restart(context.WithoutCancel(ctx))
	}},
	{"restart-mysql", mysql, func(ctx context.Context, d *demolition, _ *rand.Rand) error {
		d.say("restart MySQL")
		return d.stack.MySQL.Restart(context.WithoutCancel(ctx))
	}},
	{"kill-mysql", mysql, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		gone := between(rng, 200*time.Millisecond, 2*time.Second)
		d.say("kill MySQL, which is back after %v", gone)
		if err := d.stack.MySQL.Kill(); err != nil {
			return err
		}
		sleep(ctx, gone)
		return d.stack.MySQL.Restart(context.WithoutCancel(ctx))
	}},
	{"cut-clients", clients, func(_ context.Context, d *demolition, rng *rand.Rand) error {
		d.say("cut %d clients", d.cut(rng))
		return nil
	}},
	{"drop-hints", graph, func(_ context.Context, d *demolition, rng *rand.Rand) error {
		p, n := pick(rng, d.stack.Graphs), 1+rng.IntN(30)
		d.say("%s loses %d hints", p.Name, n)
		return d.setFaults(p, fmt.Sprintf("hub.hint=drop:%d", n))
	}},
	{"drop-publishes", messages, func(_ context.Context, d *demolition, rng *rand.Rand) error {
		p, n := pick(rng, d.stack.Messages), 1+rng.IntN(30)
		d.say("%s does not publish %d events", p.Name, n)
		return d.setFaults(p, fmt.Sprintf("messages.publish=drop:%d", n))
	}},
	{"kill-before-publish", messages, func(ctx context.Context, d *demolition, rng *rand.Rand) error {
		return d.killBeforePublish(ctx, rng)
	}},
}

// FaultNames returns the names of all faults.
func FaultNames() []string {
	names := make([]string, len(faults))
	for i, f := range faults {
		names[i] = f.name
	}
	return names
}

// demolition strikes a stack with faults.
type demolition struct {
	stack *harness.Stack
	base  map[string]string        // The faults that each service has for the whole run.
	cut   func(rng *rand.Rand) int // Cuts the connections of some clients, and returns how many.
	say   func(format string, args ...any)

	occupied map[part]*sync.Mutex

	mu      sync.Mutex
	struck  map[string]int
	mishaps []Violation
	errs    []error
}

func newDemolition(stack *harness.Stack, base map[string]string, cut func(*rand.Rand) int, say func(string, ...any)) *demolition {
	d := &demolition{stack: stack, base: base, cut: cut, say: say, occupied: map[part]*sync.Mutex{}, struck: map[string]int{}}
	for _, p := range []part{users, messages, graph, redis, mysql, clients} {
		d.occupied[p] = &sync.Mutex{}
	}
	return d
}

// run strikes until the time is over: first with each fault once, in random order, spread over the time, and then
// with any. A fault may strike while another lasts. When it returns, everything works again.
func (d *demolition) run(ctx context.Context, end time.Time, rng *rand.Rand) error {
	order := rng.Perm(len(faults))
	var lasting sync.WaitGroup
	for i := 0; ctx.Err() == nil; i++ {
		left := max(len(order)-i, 1)
		pause := min(time.Until(end)/time.Duration(left), 4*time.Second)
		if i >= len(order) && time.Until(end) <= 0 {
			break
		}
		sleep(ctx, between(rng, 0, max(2*pause, time.Millisecond)))
		next := faults[rng.IntN(len(faults))]
		if i < len(order) {
			next = faults[order[i]]
		}
		d.occupied[next.part].Lock()
		d.reviveDead(ctx, next.part)
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		lasting.Go(func() {
			defer d.occupied[next.part].Unlock()
			if err := next.strike(ctx, d, rng); err != nil {
				d.fail(fmt.Errorf("%s: %w", next.name, err))
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.struck[next.name]++
		})
	}
	lasting.Wait()
	for _, p := range []part{users, messages, graph} {
		d.reviveDead(ctx, p)
	}
	for _, p := range d.stack.Processes() {
		d.fail(d.setFaults(p, ""))
	}
	return errors.Join(d.errs...)
}

// fail notes why the run is worth nothing, if there is a reason.
func (d *demolition) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errs = append(d.errs, err)
}

// reviveDead starts processes that have ended although nobody struck them, and notes that. The caller holds the part.
func (d *demolition) reviveDead(ctx context.Context, part part) {
	for _, p := range d.stack.Processes() {
		if p.Service != string(part) || p.Running() {
			continue
		}
		d.mu.Lock()
		d.mishaps = append(d.mishaps, Violation{Kind: Mishap, What: p.Name + " ended by itself; see " + p.LogFile()})
		d.mu.Unlock()
		d.fail(d.revive(ctx, p))
	}
}

func (d *demolition) kill(ctx context.Context, p *harness.Process, rng *rand.Rand) error {
	gone := between(rng, 0, 2*time.Second)
	d.say("kill %s, which is back after %v", p.Name, gone)
	if err := p.Kill(); err != nil {
		return err
	}
	sleep(ctx, gone)
	return d.revive(ctx, p)
}

func (d *demolition) stop(ctx context.Context, p *harness.Process) error {
	d.say("stop %s and start it again", p.Name)
	if err := p.Stop(); err != nil {
		return err
	}
	return d.revive(ctx, p)
}

// revive starts a process as an orchestrator does: again and again, since what it needs may be away.
func (d *demolition) revive(ctx context.Context, p *harness.Process) error {
	// A run that is given up leaves a whole stack behind, so that its end tells of nothing but the run.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	for {
		err := p.Start(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		sleep(ctx, 200*time.Millisecond)
	}
}

func (d *demolition) pause(ctx context.Context, name string, pid int, rng *rand.Rand) error {
	still := between(rng, 500*time.Millisecond, 3*time.Second)
	d.say("pause %s for %v", name, still)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pause %s: %w", name, err)
	}
	sleep(ctx, still)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return fmt.Errorf("resume %s: %w", name, err)
	}
	return nil
}

// killBeforePublish kills a messages process between the commit of a message and its publish.
func (d *demolition) killBeforePublish(ctx context.Context, rng *rand.Rand) error {
	p, pass := pick(rng, d.stack.Messages), 1+rng.IntN(5)
	if err := d.setFaults(p, fmt.Sprintf("messages.before-publish=kill:%d", pass)); err != nil {
		return err
	}
	// The balancer may send everything to the other process; this one then never commits, and the other has to do.
	for !d.endsWithin(ctx, p, 3*time.Second) {
		if err := d.setFaults(p, ""); err != nil {
			return err
		}
		if !p.Running() || ctx.Err() != nil {
			break
		}
		p = other(d.stack.Messages, p)
		if err := d.setFaults(p, fmt.Sprintf("messages.before-publish=kill:%d", pass)); err != nil {
			return err
		}
	}
	d.say("kill %s between commit and publish", p.Name)
	if err := d.setFaults(p, ""); err != nil {
		return err
	}
	if p.Running() {
		return ctx.Err()
	}
	return d.revive(ctx, p)
}

func (d *demolition) endsWithin(ctx context.Context, p *harness.Process, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.Exited():
		return true
	case <-ctx.Done():
		return false
	case <-timer.C:
		return false
	}
}

// setFaults makes faults strike a process besides those that it has for the whole run.
func (d *demolition) setFaults(p *harness.Process, list string) error {
	return p.SetFaults(strings.Trim(d.base[p.Service]+","+list, ","))
}

func pick(rng *rand.Rand, processes []*harness.Process) *harness.Process {
	return processes[rng.IntN(len(processes))]
}

// other returns the process after one, in a circle.
func other(processes []*harness.Process, p *harness.Process) *harness.Process {
	return processes[(slices.Index(processes, p)+1)%len(processes)]
}

// between returns a random duration, in whole milliseconds.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(rng.Int64N(int64(most-least)+1))).Truncate(time.Millisecond)
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
