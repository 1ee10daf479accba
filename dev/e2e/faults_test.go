package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/ids"
)

// setFaults makes faults strike processes; an empty list ends them.
func setFaults(t *testing.T, processes []*harness.Process, list string) {
	t.Helper()
	for _, p := range processes {
		if err := p.SetFaults(list); err != nil {
			t.Fatal(err)
		}
	}
}

// within checks that an event arrived soon enough after a moment.
func within(t *testing.T, what string, e client.Event, since time.Time, limit time.Duration) {
	t.Helper()
	if took := e.At.Sub(since); took > limit {
		t.Errorf("%s: message %d of the conversation arrived after %v, want at most %v", what, e.Message.Seq, took.Round(time.Millisecond), limit)
	}
}

// followEverywhere opens a subscription of each account at each graph process.
func followEverywhere(t *testing.T, stack *harness.Stack, accounts ...*client.Client) []*stream {
	t.Helper()
	var streams []*stream
	for _, c := range accounts {
		after := cursor(t, c)
		for _, endpoint := range stack.Endpoints() {
			streams = append(streams, follow(t, c, after, endpoint))
		}
	}
	return streams
}

// established sends a message and waits until every stream has it, so that all are live.
func established(t *testing.T, from, to *client.Client, streams []*stream) client.Message {
	t.Helper()
	m := send(t, from, to, "before the fault")
	for _, s := range streams {
		s.until(t, m)
	}
	return m
}

func TestTheLastHintIsDroppedAndTheMessageDeliveredWithin5SecondsAllTheSame(t *testing.T) {
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Messages: 2, Graphs: 2}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	streams := followEverywhere(t, stack, ann, bob)
	want := []client.Message{established(t, ann, bob, streams)}
	for _, tt := range []struct {
		where     string
		processes []*harness.Process
		fault     string
	}{
		{"swallowed before Redis", stack.Messages, "messages.publish=drop"},
		{"swallowed before Redis, and nobody sweeps", stack.Messages, "messages.publish=drop,messages.sweeper=drop"},
		{"swallowed behind Redis", stack.Graphs, "hub.hint=drop"},
	} {
		setFaults(t, tt.processes, tt.fault)
		before := time.Now()
		m := send(t, ann, bob, tt.where)
		want = append(want, m)
		for _, s := range streams {
			events := s.until(t, m)
			within(t, tt.where+", to "+s.name, events[len(events)-1], before, 5*time.Second)
			wantOnceInOrder(t, s.name, events, want)
		}
		setFaults(t, tt.processes, "")
	}
}

func TestRedisStoppedFor10SecondsCostsNoSendAndNoDelivery(t *testing.T) {
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Messages: 2, Graphs: 2}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	streams := followEverywhere(t, stack, ann, bob)
	want := []client.Message{established(t, ann, bob, streams)}
	if err := stack.Redis.Stop(); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	acked := []time.Time{stopped}
	for n := 0; time.Since(stopped) < 10*time.Second; n++ {
		want = append(want, send(t, at(stack, ann)[n%len(stack.Graphs)], bob, fmt.Sprint("without Redis ", n)))
		acked = append(acked, time.Now())
		time.Sleep(100 * time.Millisecond)
	}
	if err := stack.Redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	for _, s := range streams {
		events := s.count(t, len(want))
		wantOnceInOrder(t, s.name, events, want)
		for i, e := range events[1:] {
			sent := acked[i+1]
			within(t, "without Redis, to "+s.name, e, sent, 5*time.Second)
			within(t, "after Redis' return, to "+s.name, e, back, 3*time.Second)
		}
	}
	// Everything is as before: a hint arrives, and nothing comes twice.
	want = append(want, send(t, bob, ann, "with Redis again"))
	for _, s := range streams {
		wantOnceInOrder(t, s.name, s.until(t, want[len(want)-1]), want)
	}
}

func TestMessagesKilledBetweenCommitAndPublishTheMessageIsDeliveredAfterRestart(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Graphs: 2}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	streams := followEverywhere(t, stack, ann, bob)
	want := []client.Message{established(t, ann, bob, streams)}
	messages := stack.Messages[0]

	setFaults(t, stack.Messages, "messages.before-publish=kill")
	d := client.Draft{RecipientID: bob.User.ID, Body: "the process dies on this", ClientID: ids.New().String()}
	if m, err := ann.Send(t.Context(), d); !client.Retryable(err) {
		t.Fatalf("the send on which messages dies is answered with %+v, %v; want a retryable error", m, err)
	}
	select {
	case <-messages.Exited():
	case <-time.After(patience):
		t.Fatal("messages lives on")
	}
	setFaults(t, stack.Messages, "")
	if err := messages.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Delivered without anybody's asking again.
	for _, s := range streams {
		if got := bodies(s.count(t, 2)); !slices.Equal(got, []string{want[0].Body, d.Body}) {
			t.Fatalf("%s got %q", s.name, got)
		}
	}
	again, err := settledSend(t.Context(), ann, d)
	if err != nil || again.Seq != 2 {
		t.Fatalf("the same send again is answered with %+v, %v", again, err)
	}
	want = append(want, again, send(t, bob, ann, "after"))
	for _, s := range streams {
		wantOnceInOrder(t, s.name, s.until(t, want[2]), want)
	}
	// And published in the end, too.
	db, err := stack.OpenDB("messages")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	eventually(t, "the sweeper publishes what was left behind", func(ctx context.Context) (bool, error) {
		var left int
		err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM events WHERE unrelayed = 1").Scan(&left)
		return left == 0, err
	})
}

func TestGraphKilledClientsReconnectToAnotherAndResume(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Messages: 2, Graphs: 2}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	endpoints := stack.Endpoints()
	backwards := []string{endpoints[1], endpoints[0]}
	var streams []*stream
	for _, c := range []*client.Client{ann, bob} {
		after := cursor(t, c)
		streams = append(streams, follow(t, c, after, endpoints...), follow(t, c, after, backwards...))
	}
	want := []client.Message{established(t, ann, bob, streams)}
	var (
		mu       sync.Mutex
		progress = make(chan struct{}, 1)
		sending  sync.WaitGroup
	)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sending.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			m, err := settledSend(t.Context(), ann, client.Draft{
				RecipientID: bob.User.ID, Body: fmt.Sprint("while graphs die ", n), ClientID: ids.New().String(),
			}, endpoints...)
			if err != nil {
				t.Errorf("message %d: %v", n, err)
				return
			}
			mu.Lock()
			want = append(want, m)
			mu.Unlock()
			select {
			case progress <- struct{}{}:
			default:
			}
		}
	})
	for _, graph := range []*harness.Process{stack.Graphs[0], stack.Graphs[1], stack.Graphs[0]} {
		if err := graph.Kill(); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			<-progress
		}
		if err := graph.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			<-progress
		}
	}
	stop()
	sending.Wait()
	if t.Failed() {
		return
	}
	for _, s := range streams {
		wantOnceInOrder(t, s.name, s.until(t, want[len(want)-1]), want)
	}
}

func TestMySQLRestartedSendsFailWithAClearRetryableErrorAndSucceedOnceAfterwards(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, harness.Options{Messages: 2, Graphs: 2})
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	streams := followEverywhere(t, stack, ann, bob)
	want := []client.Message{established(t, ann, bob, streams)}

	// Some are under way while it goes down, others begin while it is away.
	const senders = 8
	ctx, back := context.WithCancel(t.Context())
	defer back()
	var (
		mu       sync.Mutex
		failures int
		sending  sync.WaitGroup
	)
	for i := range senders {
		sending.Go(func() {
			c := at(stack, ann)[i%len(stack.Graphs)]
			for n := 0; ctx.Err() == nil; n++ {
				d := client.Draft{RecipientID: bob.User.ID, Body: fmt.Sprintf("%d of %d", n, i), ClientID: ids.New().String()}
				for {
					begun := time.Now()
					m, err := c.Send(t.Context(), d)
					// Five seconds is a call's own deadline; the machine gets as much again.
					if took := time.Since(begun); took > 10*time.Second {
						t.Errorf("a send hung for %v", took)
					}
					if err == nil {
						mu.Lock()
						want = append(want, m)
						mu.Unlock()
						break
					}
					if client.Code(err) != "UNAVAILABLE" {
						t.Errorf("a send fails with %v, want UNAVAILABLE", err)
						return
					}
					mu.Lock()
					failures++
					mu.Unlock()
				}
			}
		})
	}
	failed := func(n int) func(context.Context) (bool, error) {
		return func(context.Context) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			return failures >= n || t.Failed(), nil
		}
	}
	if err := stack.MySQL.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "sends fail while MySQL is down", failed(2*senders))
	if err := stack.MySQL.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A stop by the book, too, with everything under way again.
	if err := stack.MySQL.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	back()
	sending.Wait()
	if t.Failed() {
		return
	}
	slices.SortFunc(want, func(a, b client.Message) int { return a.Seq - b.Seq })
	listed := history(t, bob, want[0].ConversationID)
	if len(listed) != len(want) {
		t.Fatalf("the history has %d messages, of %d that were acknowledged", len(listed), len(want))
	}
	for i, m := range listed {
		if m.ID != want[i].ID || m.Seq != i+1 {
			t.Fatalf("the history has message %d %.50q in place %d, want %.50q", m.Seq, m.Body, i+1, want[i].Body)
		}
	}
	for _, s := range streams {
		wantOnceInOrder(t, s.name, s.until(t, want[len(want)-1]), want)
	}
}
