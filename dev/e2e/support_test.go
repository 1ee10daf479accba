package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/ids"
)

// patience bounds waits that no statement bounds, so that a test that would hang fails instead.
const patience = time.Minute

const password = "correct horse battery staple"

var accounts atomic.Int64

// account signs somebody up, under a name that nobody else has, and returns a client at the first graph process.
func account(t *testing.T, stack *harness.Stack, name string) *client.Client {
	t.Helper()
	username := fmt.Sprintf("%s-%d", strings.ToLower(name), accounts.Add(1))
	c, err := client.New(stack.Endpoints()[0]).SignUp(t.Context(), client.Account{
		Username: username, Email: username + "@example.com", DisplayName: name, Password: password,
	})
	if err != nil {
		t.Fatalf("sign %s up: %v", username, err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// at returns the client at each graph process.
func at(stack *harness.Stack, c *client.Client) []*client.Client {
	clients := make([]*client.Client, len(stack.Graphs))
	for i, endpoint := range stack.Endpoints() {
		clients[i] = c.At(endpoint)
	}
	return clients
}

// send sends a message to somebody.
func send(t *testing.T, from, to *client.Client, body string) client.Message {
	t.Helper()
	m, err := from.Send(t.Context(), client.Draft{RecipientID: to.User.ID, Body: body, ClientID: ids.New().String()})
	if err != nil {
		t.Fatalf("send %.50q: %v", body, err)
	}
	return m
}

// cursor reads the newest place of a log.
func cursor(t *testing.T, c *client.Client) string {
	t.Helper()
	cursor, err := c.Cursor(t.Context())
	if err != nil {
		t.Fatalf("read the cursor: %v", err)
	}
	return cursor
}

// history reads a whole conversation.
func history(t *testing.T, c *client.Client, conversation string) []client.Message {
	t.Helper()
	messages, err := c.AllHistory(t.Context(), conversation)
	if err != nil {
		t.Fatalf("read the history: %v", err)
	}
	return messages
}

// conversationWith reads the conversation with somebody, which must exist.
func conversationWith(t *testing.T, c, peer *client.Client) client.Conversation {
	t.Helper()
	conversation, err := c.ConversationWith(t.Context(), peer.User.ID)
	if err != nil {
		t.Fatalf("read the conversation: %v", err)
	}
	if conversation == nil {
		t.Fatalf("%s has no conversation with %s", c.User.Username, peer.User.Username)
	}
	return *conversation
}

// stream collects what a subscription yields.
type stream struct {
	name string

	mu      sync.Mutex
	events  []client.Event
	ended   bool
	err     error
	changed chan struct{} // Closed and replaced at each change.

	close func()
	cut   func()
}

// follow opens a subscription after a cursor that resumes by itself, at the given endpoints in turn.
func follow(t *testing.T, c *client.Client, after string, endpoints ...string) *stream {
	t.Helper()
	f := c.Follow(t.Context(), after, endpoints...)
	s := newStream(t, c.User.Username, f.Events(), f.Err, f.Close)
	s.cut = f.Cut
	return s
}

// subscribe opens a subscription that does not resume.
func subscribe(t *testing.T, c *client.Client, after string) *stream {
	t.Helper()
	sub, err := c.Subscribe(t.Context(), after)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	s := newStream(t, c.User.Username, sub.Events(), sub.Err, sub.Socket().Close)
	s.cut = sub.Socket().Cut
	return s
}

func newStream(t *testing.T, name string, events <-chan client.Event, reason func() error, end func()) *stream {
	s := &stream{name: name, changed: make(chan struct{})}
	collected := make(chan struct{})
	s.close = func() {
		end()
		<-collected
	}
	go func() {
		defer close(collected)
		for event := range events {
			s.note(func() { s.events = append(s.events, event) })
		}
		s.note(func() { s.ended, s.err = true, reason() })
	}()
	t.Cleanup(s.close)
	return s
}

func (s *stream) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until the events satisfy a condition, and returns them.
func (s *stream) await(t *testing.T, what string, enough func([]client.Event) bool) []client.Event {
	t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		events, ended, err, changed := slices.Clone(s.events), s.ended, s.err, s.changed
		s.mu.Unlock()
		if enough(events) {
			return events
		}
		if ended {
			t.Fatalf("the stream of %s ended with %v after %d events, before %s", s.name, err, len(events), what)
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the stream of %s had %d events after %v and is still without %s", s.name, len(events), patience, what)
		}
	}
}

// count waits for a number of events.
func (s *stream) count(t *testing.T, n int) []client.Event {
	t.Helper()
	return s.await(t, fmt.Sprintf("%d events", n), func(events []client.Event) bool { return len(events) >= n })
}

// until waits for the event of a message.
func (s *stream) until(t *testing.T, last client.Message) []client.Event {
	t.Helper()
	return s.await(t, fmt.Sprintf("%.50q", last.Body), func(events []client.Event) bool {
		return slices.ContainsFunc(events, func(e client.Event) bool { return e.Message.ID == last.ID })
	})
}

// failure waits for the stream to end, and returns why it did. Events before it are a failure of the test.
func (s *stream) failure(t *testing.T) error {
	t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		events, ended, err, changed := len(s.events), s.ended, s.err, s.changed
		s.mu.Unlock()
		if events > 0 {
			t.Fatalf("the stream of %s yields an event where it was to fail", s.name)
		}
		if ended {
			return err
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the stream of %s goes on where it was to fail", s.name)
		}
	}
}

// end waits for the stream to end, and returns what it yielded and why it ended.
func (s *stream) end(t *testing.T) ([]client.Event, error) {
	t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		events, ended, err, changed := slices.Clone(s.events), s.ended, s.err, s.changed
		s.mu.Unlock()
		if ended {
			return events, err
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the stream of %s goes on where it was to end", s.name)
		}
	}
}

// bodies are the texts of events.
func bodies(events []client.Event) []string {
	texts := make([]string, len(events))
	for i, e := range events {
		texts[i] = e.Message.Body
	}
	return texts
}

// wantOnceInOrder checks that a stream has yielded exactly the messages, in their order.
func wantOnceInOrder(t *testing.T, who string, events []client.Event, want []client.Message) {
	t.Helper()
	for i := range min(len(events), len(want)) {
		if got := events[i].Message; got.ID != want[i].ID || got.Seq != want[i].Seq || got.Body != want[i].Body {
			t.Fatalf("event %d of %s is message %d %.50q, want message %d %.50q", i, who, got.Seq, got.Body, want[i].Seq, want[i].Body)
		}
	}
	if len(events) != len(want) {
		t.Fatalf("%s got %d events, want %d", who, len(events), len(want))
	}
}

// wantConsecutive checks that, in each conversation, numbers ascend by one.
func wantConsecutive(t *testing.T, who string, events []client.Event) {
	t.Helper()
	last := map[string]int{}
	for i, e := range events {
		m := e.Message
		if before, ok := last[m.ConversationID]; ok && m.Seq != before+1 {
			t.Fatalf("event %d of %s is message %d after message %d", i, who, m.Seq, before)
		}
		last[m.ConversationID] = m.Seq
	}
}

// refusal returns the user errors of an error, which must be some.
func refusal(t *testing.T, err error) client.UserErrors {
	t.Helper()
	var refused client.UserErrors
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want userErrors", err)
	}
	return refused
}

// settledSend sends until the message is acknowledged, as a client does that keeps what it could not send.
func settledSend(ctx context.Context, c *client.Client, d client.Draft, endpoints ...string) (client.Message, error) {
	for i := 0; ; i++ {
		at := c
		if len(endpoints) > 0 {
			at = c.At(endpoints[i%len(endpoints)])
		}
		m, err := at.Send(ctx, d)
		if err == nil || !client.Retryable(err) || ctx.Err() != nil {
			return m, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// parallel runs n functions at the same time and waits for them.
func parallel(n int, do func(i int)) {
	var doing sync.WaitGroup
	for i := range n {
		doing.Go(func() { do(i) })
	}
	doing.Wait()
}
