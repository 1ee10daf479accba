// Package torture drives a whole system while its parts are killed, stopped, paused and cut off, writes down every
// acknowledgement and every delivery, and checks that nothing acknowledged was lost, doubled or out of order for anybody.
//
// [Run] does the driving and [Check], which knows nothing of processes, the judging. A run is not repeatable, since its
// processes and its clients race; its seed repeats the choices, such as which fault strikes which process.
package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
)

// Breaks are the ways in which the services can be broken on purpose, by the names of the fault points that do it, so
// that one can see the checker notice.
var Breaks = map[string]struct{ Service, Fault string }{
	"sweeper":            {"messages", "messages.sweeper=drop"},
	"gap-check":          {"graph", "hub.skip-gap-check=drop"},
	"head-check":         {"graph", "hub.skip-head-check=drop"},
	"live-before-replay": {"graph", "hub.live-before-replay=drop"},
}

// BreakNames returns the names of Breaks, in order.
func BreakNames() []string { return slices.Sorted(maps.Keys(Breaks)) }

const (
	// devicesEach is how many subscriptions each person has from the start.
	devicesEach = 2
	// progressEvery is how often numbers are printed.
	progressEvery = 5 * time.Second
	// restTimeout bounds the wait for everything to come to rest, after the last fault.
	restTimeout = 2 * time.Minute
	// catchUp bounds the wait for the last deliveries: several times what they may take.
	catchUp = 20 * time.Second
	// reconnect is how long services may take to find Redis again.
	reconnect = 3 * time.Second
	// settle is how long to look for deliveries that are too many.
	settle = 500 * time.Millisecond
	// password is everybody's.
	password = "correct horse battery staple"
)

// Options says how to run.
type Options struct {
	// Programs are the services, built with fault points.
	Programs *harness.Programs
	// Dir gets the logs of the processes.
	Dir string
	// For is how long faults strike.
	For time.Duration
	// Users is how many people talk, 2 or more.
	Users int
	// Rate is how many messages they send in a second, all together, while nothing is broken.
	Rate int
	// Seed decides what is decided by chance.
	Seed uint64
	// Break names one of Breaks, or nothing.
	Break string
	// Out gets a line for each fault and now and then one with numbers.
	Out io.Writer
	// Log gets what the harness has to say.
	Log *slog.Logger
}

// Result is what came of a run.
type Result struct {
	// Violations are what the checker found.
	Violations []Violation
	// Struck has how often each fault has struck.
	Struck map[string]int
	// Messages, Deliveries and Sockets are how much the verdict stands on.
	Messages, Deliveries, Sockets int
}

// Run starts a system, tortures it, and checks what its clients saw. Its error says why there is no verdict.
func Run(ctx context.Context, opts Options) (_ Result, err error) {
	t := &run{opts: opts, begun: time.Now(), base: map[string]string{}}
	if opts.Break != "" {
		b := Breaks[opts.Break]
		t.base[b.Service] = b.Fault
	}
	t.stack, err = harness.Start(ctx, harness.Options{
		Programs: opts.Programs, Dir: opts.Dir, Users: 1, Messages: 2, Graphs: 2, Log: opts.Log,
		Env: []string{
			// Connections between the services move from one process to the other all the time.
			"MESSAGES_RPC_MAX_CONNECTION_AGE=5s", "USERS_RPC_MAX_CONNECTION_AGE=5s",
			harness.CheapPasswords,
		},
		Faults: t.base,
	})
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, t.stack.Close()) }()
	return t.run(ctx)
}

// run is one run.
type run struct {
	opts  Options
	stack *harness.Stack
	base  map[string]string
	begun time.Time
	crowd *crowd

	printing sync.Mutex
}

// say prints a line.
func (t *run) say(format string, args ...any) {
	t.printing.Lock()
	defer t.printing.Unlock()
	fmt.Fprintf(t.opts.Out, "%7.1fs  %s\n", time.Since(t.begun).Seconds(), fmt.Sprintf(format, args...))
}

// rng returns a source of chance for one purpose.
func (t *run) rng(purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(t.opts.Seed, purpose)) }

func (t *run) run(ctx context.Context) (Result, error) {
	// Streams end when the run does.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := t.gather(ctx); err != nil {
		return Result{}, err
	}
	t.say("%d people talk on %d devices; seed %d, logs in %s", len(t.crowd.people), devicesEach*len(t.crowd.people), t.opts.Seed, t.opts.Dir)

	demolition := newDemolition(t.stack, t.base, t.cut, t.say)
	if err := t.talk(ctx, demolition); err != nil {
		return Result{}, err
	}
	if err := t.lastWords(ctx, demolition); err != nil {
		return Result{}, err
	}
	history, err := t.history(ctx)
	if err != nil {
		return Result{}, err
	}
	history.Mishaps = append(history.Mishaps, demolition.mishaps...)
	result := Result{Violations: Check(history), Struck: demolition.struck}
	for _, view := range history.Views {
		for _, c := range view.Conversations {
			// A conversation of two is in two views.
			if view.User <= c.With {
				result.Messages += len(c.Messages)
			}
		}
	}
	for _, s := range history.Streams {
		result.Deliveries += len(s.Messages)
	}
	for _, p := range t.crowd.people {
		for _, d := range p.allDevices() {
			result.Sockets += d.follower.Sockets()
		}
	}
	return result, nil
}

// gather makes the accounts and opens the subscriptions.
func (t *run) gather(ctx context.Context) error {
	t.crowd = &crowd{
		endpoints: t.stack.Endpoints(),
		pace:      time.Second * time.Duration(t.opts.Users) / time.Duration(t.opts.Rate),
		pairs:     map[string][2]*person{},
	}
	api := client.New(t.crowd.endpoints[0])
	for i := range t.opts.Users {
		name := fmt.Sprintf("person-%d", i+1)
		c, err := api.SignUp(ctx, client.Account{
			Username: name, Email: name + "@example.com", DisplayName: name, Password: password,
		})
		if err != nil {
			return fmt.Errorf("sign %s up: %w", name, err)
		}
		p := &person{crowd: t.crowd, client: c, id: c.User.ID, name: name, with: map[string]string{}, newest: map[string]Message{}}
		if p.start, err = c.Cursor(ctx); err != nil {
			return fmt.Errorf("read the cursor of %s: %w", name, err)
		}
		t.crowd.people = append(t.crowd.people, p)
	}
	for _, p := range t.crowd.people {
		for i := range devicesEach {
			p.watch(ctx, fmt.Sprint(i+1), i%len(t.crowd.endpoints))
		}
	}
	return nil
}

// talk lets people send and read while faults strike, and returns when all is said and everything works again.
func (t *run) talk(ctx context.Context, d *demolition) error {
	stop := make(chan struct{})
	end := time.Now().Add(t.opts.For)
	var talking sync.WaitGroup
	for i, p := range t.crowd.people {
		purpose := 3 * uint64(i)
		talking.Go(func() { p.talk(ctx, stop, t.rng(purpose+1)) })
		talking.Go(func() { p.read(ctx, stop, t.rng(purpose+2)) })
		talking.Go(func() {
			// A device that joins while it all happens.
			rng := t.rng(purpose + 3)
			sleep(ctx, between(rng, t.opts.For/10, t.opts.For*9/10))
			p.watchLate(ctx, rng, "late")
		})
	}
	numbers := time.NewTicker(progressEvery)
	defer numbers.Stop()
	struck := make(chan error, 1)
	go func() { struck <- d.run(ctx, end, t.rng(0)) }()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-struck:
			waiting = false
		case <-numbers.C:
			t.numbers()
		}
	}
	close(stop)
	talking.Wait()
	t.numbers()
	return errors.Join(err, ctx.Err())
}

func (t *run) numbers() {
	streams, waiting, sockets := 0, 0, 0
	for _, p := range t.crowd.people {
		for _, d := range p.allDevices() {
			streams++
			sockets += d.follower.Sockets()
			if d.follower.Awaiting() != nil {
				waiting++
			}
		}
	}
	t.say("%d acknowledged of %d attempts, %d deliveries on %d streams, of which %d reconnect; %d sockets so far",
		t.crowd.acknowledged.Load(), t.crowd.attempts.Load(), t.crowd.delivered.Load(), streams, waiting, sockets)
}

// cut breaks the connections of about half of the devices.
func (t *run) cut(rng *rand.Rand) int {
	n := 0
	for _, p := range t.crowd.people {
		for _, d := range p.allDevices() {
			if rng.IntN(2) == 0 {
				d.follower.Cut()
				n++
			}
		}
	}
	return n
}

// lastWords sends messages after which nobody says anything, so that no later one can betray that they were missed:
// some that are not published, and then some whose hints are lost on the way.
func (t *run) lastWords(ctx context.Context, d *demolition) error {
	rng := t.rng(1 << 32)
	// Those who lost Redis need a moment to find it again, and what is published meanwhile comes by other ways.
	sleep(ctx, reconnect)
	for _, last := range []struct {
		processes []*harness.Process
		fault     string
		lasts     time.Duration
	}{
		{t.stack.Messages, "messages.publish=drop", 0},
		// Longer than the sweeper waits before it publishes again.
		{t.stack.Graphs, "hub.hint=drop", 5 * time.Second},
	} {
		t.say("last words, with %s", last.fault)
		for _, p := range last.processes {
			if err := d.setFaults(p, last.fault); err != nil {
				return err
			}
		}
		for i, p := range t.crowd.people {
			peer := t.crowd.people[(i+1)%len(t.crowd.people)]
			p.send(ctx, rng, peer, fmt.Sprintf("last words of %s to %s, with %s", p.name, peer.name, last.fault), false)
		}
		sleep(ctx, last.lasts)
		for _, p := range last.processes {
			if err := d.setFaults(p, ""); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// history waits for everything to come to rest and returns what was seen.
func (t *run) history(ctx context.Context) (History, error) {
	ctx, cancel := context.WithTimeout(ctx, restTimeout)
	defer cancel()
	t.say("waiting for the last deliveries")
	views := make([]View, len(t.crowd.people))
	err := t.each(func(i int, p *person) (err error) {
		views[i] = View{User: p.id}
		views[i].Conversations, err = p.lists(ctx, t.rng(1<<33+uint64(i)))
		return err
	})
	if err != nil {
		return History{}, fmt.Errorf("read all lists in the end: %w", err)
	}
	deadline := time.Now().Add(catchUp)
	for !t.caughtUp(views) && time.Now().Before(deadline) && ctx.Err() == nil {
		sleep(ctx, 100*time.Millisecond)
	}
	unrelayed, err := t.unrelayed(ctx, deadline)
	if err != nil {
		return History{}, err
	}
	sleep(ctx, settle)

	h := History{Views: views, Unrelayed: unrelayed}
	for _, p := range t.crowd.people {
		for _, d := range p.allDevices() {
			d.follower.Close()
			<-d.done
			h.Streams = append(h.Streams, Stream{User: p.id, Name: d.name, Late: d.late, Known: d.known, Messages: d.seen()})
		}
	}
	// Only now: a new subscription of a user could show the others what they have missed.
	err = t.each(func(i int, p *person) (err error) {
		views[i].Log, err = p.log(ctx, views[i].Conversations)
		return err
	})
	if err != nil {
		return History{}, fmt.Errorf("read all logs in the end: %w", err)
	}
	t.crowd.mu.Lock()
	defer t.crowd.mu.Unlock()
	h.Sends, h.Marks, h.Mishaps = t.crowd.sends, t.crowd.marks, slices.Clone(t.crowd.mishaps)
	return h, ctx.Err()
}

// each does something for all people at the same time.
func (t *run) each(do func(i int, p *person) error) error {
	errs := make([]error, len(t.crowd.people))
	var doing sync.WaitGroup
	for i, p := range t.crowd.people {
		doing.Go(func() { errs[i] = do(i, p) })
	}
	doing.Wait()
	return errors.Join(errs...)
}

// caughtUp says whether every device has shown all that its person's lists have.
func (t *run) caughtUp(views []View) bool {
	for i, p := range t.crowd.people {
		for _, d := range p.allDevices() {
			shown := map[string]bool{}
			for _, m := range slices.Concat(d.known, d.seen()) {
				shown[m.ID] = true
			}
			for _, c := range views[i].Conversations {
				for _, m := range c.Messages {
					if !shown[m.ID] {
						return false
					}
				}
			}
		}
	}
	return true
}

// unrelayed returns how many events wait to be published, once there are none or the deadline has passed.
func (t *run) unrelayed(ctx context.Context, deadline time.Time) (int, error) {
	db, err := t.stack.OpenDB("messages")
	if err != nil {
		return 0, fmt.Errorf("look for events that were not published: %w", err)
	}
	defer db.Close()
	for {
		n, err := countUnrelayed(ctx, db)
		if err != nil || n == 0 || time.Now().After(deadline) {
			return n, err
		}
		sleep(ctx, 200*time.Millisecond)
	}
}

func countUnrelayed(ctx context.Context, db *sql.DB) (int, error) {
	var n int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM events WHERE unrelayed = 1").Scan(&n); err != nil {
		return 0, fmt.Errorf("look for events that were not published: %w", err)
	}
	return n, nil
}

// log reads a person's log by a subscription from the cursor before the first message, up to as many messages as the
// conversations have. One that is not complete in time is for the checker to judge.
func (p *person) log(ctx context.Context, conversations []Conversation) ([]Message, error) {
	expected := 0
	for _, c := range conversations {
		expected += len(c.Messages)
	}
	follower := p.client.Follow(ctx, p.start, p.crowd.endpoints...)
	defer follower.Close()
	timeout := time.NewTimer(catchUp)
	defer timeout.Stop()
	var log []Message
	for len(log) < expected {
		select {
		case event, open := <-follower.Events():
			if !open {
				return nil, fmt.Errorf("the log of %s ended: %w", p.name, errors.Join(follower.Err(), ctx.Err()))
			}
			log = append(log, seenAs(event.Message))
		case <-timeout.C:
			return log, nil
		}
	}
	return log, nil
}

// Report writes the verdict for people.
func (r Result) Report(w io.Writer) {
	counts := FaultNames()
	for i, name := range counts {
		counts[i] = fmt.Sprintf("%s %d", name, r.Struck[name])
	}
	fmt.Fprintf(w, "faults: %s\n", strings.Join(counts, ", "))
	fmt.Fprintf(w, "checked: %d messages, %d deliveries over %d sockets\n", r.Messages, r.Deliveries, r.Sockets)
	const show = 20
	for _, v := range r.Violations[:min(show, len(r.Violations))] {
		fmt.Fprintln(w, v)
	}
	if len(r.Violations) > show {
		fmt.Fprintf(w, "and %d more\n", len(r.Violations)-show)
	}
}
