package e2e

import (
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
