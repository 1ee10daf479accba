package e2e

import (
	"errors"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
)

// devices signs somebody up and in again, and returns a client for each session.
func devices(t *testing.T, stack *harness.Stack, name string) (phone, laptop *client.Client) {
	t.Helper()
	phone = account(t, stack, name)
	laptop, err := phone.SignIn(t.Context(), phone.User.Username, password)
	if err != nil {
		t.Fatalf("sign %s in: %v", phone.User.Username, err)
	}
	return phone, laptop
}

// signOut signs a client out, and returns when that was acknowledged.
func signOut(t *testing.T, c *client.Client) time.Time {
	t.Helper()
	if err := c.SignOut(t.Context()); err != nil {
		t.Fatalf("sign %s out: %v", c.User.Username, err)
	}
	return time.Now()
}

// refusedWithin checks that every graph process comes to refuse a client's token within a time since a moment.
func refusedWithin(t *testing.T, stack *harness.Stack, c *client.Client, since time.Time, limit time.Duration) {
	t.Helper()
	for i, there := range at(stack, c) {
		for {
			asked := time.Now()
			_, err := there.Me(t.Context())
			if client.Code(err) == "UNAUTHENTICATED" {
				break
			}
			if err != nil {
				t.Fatalf("graph %d answers a token that was signed out with %v", i+1, err)
			}
			if took := asked.Sub(since); took > limit {
				t.Fatalf("graph %d accepts a token %v after it was signed out, want at most %v", i+1, took.Round(time.Millisecond), limit)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// accepted checks that every graph process accepts a client's token.
func accepted(t *testing.T, stack *harness.Stack, clients ...*client.Client) {
	t.Helper()
	for _, c := range clients {
		for i, there := range at(stack, c) {
			if me, err := there.Me(t.Context()); err != nil || me != c.User {
				t.Errorf("graph %d answers another session with %+v, %v", i+1, me, err)
			}
		}
	}
}

func TestASessionThatIsSignedOutIsRefusedByEveryProcessWithin5Seconds(t *testing.T) {
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Users: 2, Graphs: 3}))
	phone, laptop := devices(t, stack, "Ann")
	bob := account(t, stack, "Bob")
	accepted(t, stack, phone, laptop, bob)
	refusedWithin(t, stack, phone, signOut(t, phone), 5*time.Second)
	accepted(t, stack, laptop, bob)
	// Also by a process that was not there to be told, and by one that has forgotten everything.
	if _, err := stack.StartGraph(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := stack.Graphs[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := stack.Graphs[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	refusedWithin(t, stack, phone, time.Now(), 0)
	accepted(t, stack, laptop, bob)
	// The person comes back with a session of its own.
	again, err := phone.SignIn(t.Context(), phone.User.Username, password)
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, stack, again)
	refusedWithin(t, stack, phone, time.Now(), 0)
}

// subscribeEverywhere opens a subscription of a client at each graph process, which does not resume.
func subscribeEverywhere(t *testing.T, stack *harness.Stack, c *client.Client) []*stream {
	t.Helper()
	after := cursor(t, c)
	var streams []*stream
	for _, there := range at(stack, c) {
		streams = append(streams, subscribe(t, there, after))
	}
	return streams
}

// closedWithin checks that streams end with 4403 within a time since a moment, having yielded no more than was sent before.
func closedWithin(t *testing.T, streams []*stream, events int, since time.Time, limit time.Duration) {
	t.Helper()
	for i, s := range streams {
		got, err := s.end(t)
		took := time.Since(since)
		var closed *client.CloseError
		if !errors.As(err, &closed) || closed.Code != 4403 {
			t.Errorf("the socket at graph %d ended with %v, want a close with 4403", i+1, err)
		}
		if took > limit {
			t.Errorf("the socket at graph %d was closed %v after the sign-out, want at most %v", i+1, took.Round(time.Millisecond), limit)
		}
		if len(got) != events {
			t.Errorf("the socket at graph %d got %q, want the first %d alone", i+1, bodies(got), events)
		}
	}
}

func TestTheSocketsOfASessionThatIsSignedOutAreClosedAndNoOthers(t *testing.T) {
	// So long that with Redis it is not the poll that does it.
	const interval = 8 * time.Second
	stack := ownStack(t, onSharedMySQL(t, harness.Options{
		Graphs: 2, Env: []string{"GRAPH_REVOCATION_POLL_INTERVAL=" + interval.String()},
	}))
	ann := account(t, stack, "Ann")
	for _, redis := range []bool{true, false} {
		phone, laptop := devices(t, stack, "Bob")
		lost, kept := subscribeEverywhere(t, stack, phone), subscribeEverywhere(t, stack, laptop)
		want := []client.Message{established(t, ann, phone, append(append([]*stream{}, lost...), kept...))}
		limit := 5 * time.Second
		if !redis {
			if err := stack.Redis.Stop(); err != nil {
				t.Fatal(err)
			}
			limit += interval
		}
		closedWithin(t, lost, len(want), signOut(t, phone), limit)
		want = append(want, send(t, ann, phone, "after the sign-out"))
		for _, s := range kept {
			wantOnceInOrder(t, s.name, s.until(t, want[1]), want)
		}
		if _, err := phone.Subscribe(t.Context(), ""); err == nil {
			t.Error("a token that was signed out opens a socket")
		}
	}
}

func TestWithoutRedisASessionThatIsSignedOutIsRefusedByPolling(t *testing.T) {
	const interval = 2 * time.Second
	stack := ownStack(t, onSharedMySQL(t, harness.Options{
		Graphs: 2, Env: []string{"GRAPH_REVOCATION_POLL_INTERVAL=" + interval.String()},
	}))
	phone, laptop := devices(t, stack, "Ann")
	if err := stack.Redis.Stop(); err != nil {
		t.Fatal(err)
	}
	// Time enough for a call on a busy machine, as the promise of 30 seconds has it at the longest interval.
	refusedWithin(t, stack, phone, signOut(t, phone), interval+5*time.Second)
	accepted(t, stack, laptop)
	// What Redis could not tell is known at its return, and it tells again.
	if err := stack.Redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	refusedWithin(t, stack, laptop, signOut(t, laptop), 5*time.Second)
}
