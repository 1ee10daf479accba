package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/internal/platform/ids"
)

func TestSenderAndRecipientBothGetAMessageOnEveryOpenConnection(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	var streams []*stream
	for _, c := range []*client.Client{ann, bob} {
		after := cursor(t, c)
		for _, endpoint := range stack.Endpoints() {
			// Two sockets a process, and one with two subscriptions.
			streams = append(streams, follow(t, c, after, endpoint), follow(t, c, after, endpoint))
			socket, err := c.At(endpoint).Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(socket.Close)
			for range 2 {
				sub, err := socket.Subscribe(after)
				if err != nil {
					t.Fatal(err)
				}
				streams = append(streams, newStream(t, c.User.Username, sub.Events(), sub.Err, socket.Close))
			}
		}
	}
	want := []client.Message{
		send(t, ann, bob, "hello"), send(t, bob, ann, "hello yourself"), send(t, ann, bob, "bye"),
	}
	for _, s := range streams {
		wantOnceInOrder(t, s.name, s.count(t, len(want)), want)
	}
}

func TestANoteToOneselfIsOneMessageAndOneEvent(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann := account(t, stack, "Ann")
	s := follow(t, ann, cursor(t, ann))
	want := []client.Message{send(t, ann, ann, "milk"), send(t, ann, ann, "bread")}
	wantOnceInOrder(t, s.name, s.until(t, want[1]), want)
	notes := conversationWith(t, ann, ann)
	if notes.With.ID != ann.User.ID || notes.UnreadCount != 0 || notes.ReadSeq != 2 {
		t.Errorf("notes to self are %+v", notes)
	}
}

func TestAThirdUserGetsNothing(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob, eve := account(t, stack, "Ann"), account(t, stack, "Bob"), account(t, stack, "Eve")
	after := cursor(t, eve)
	var streams []*stream
	for _, endpoint := range stack.Endpoints() {
		streams = append(streams, follow(t, eve, after, endpoint))
	}
	for i := range 20 {
		send(t, ann, bob, fmt.Sprint("secret ", i))
	}
	own := send(t, ann, eve, "for you")
	for _, s := range streams {
		wantOnceInOrder(t, "eve", s.until(t, own), []client.Message{own})
	}
}

// TestAThirdUserCanReadNothingAndNotLearnWhatExists compares, byte by byte, the answers for what belongs to others with those
// for ids of the same form that do not exist.
func TestAThirdUserCanReadNothingAndNotLearnWhatExists(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob, eve := account(t, stack, "Ann"), account(t, stack, "Bob"), account(t, stack, "Eve")
	send(t, ann, bob, "first")
	secret := send(t, bob, ann, "second")

	const whole = `id ... on Message { seq body sender { id } conversation { id } }
		... on Conversation { unreadCount lastMessage { body } with { id } messages(last: 5) { edges { node { body } } } }`
	tests := []struct {
		name, query string
		variables   func(message, conversation string) map[string]any
	}{
		{
			"message", `query Q($id: ID!) { message(id: $id) { id body } }`,
			func(m, _ string) map[string]any { return map[string]any{"id": m} },
		},
		{
			"node of a message", `query Q($id: ID!) { node(id: $id) { ` + whole + ` } }`,
			func(m, _ string) map[string]any { return map[string]any{"id": m} },
		},
		{
			"conversation", `query Q($id: ID!) { conversation(id: $id) { id messages { edges { node { body } } } } }`,
			func(_, c string) map[string]any { return map[string]any{"id": c} },
		},
		{
			"node of a conversation", `query Q($id: ID!) { node(id: $id) { ` + whole + ` } }`,
			func(_, c string) map[string]any { return map[string]any{"id": c} },
		},
		{
			"several at once", `query Q($m: ID!, $c: ID!) { a: node(id: $m) { id } b: node(id: $c) { id } c: message(id: $m) { id }
			d: conversation(id: $c) { id unreadCount } }`,
			func(m, c string) map[string]any { return map[string]any{"m": m, "c": c} },
		},
		{
			"send", `mutation M($input: SendMessageInput!) { sendMessage(input: $input) { message { id }
			userErrors { code message field } } }`,
			func(_, c string) map[string]any {
				return map[string]any{"input": map[string]any{"conversationId": c, "body": "let me in", "clientId": ids.New().String()}}
			},
		},
		{
			"mark read", `mutation M($input: MarkReadInput!) { markRead(input: $input) { conversation { id }
			userErrors { code message field } } }`,
			func(_, c string) map[string]any {
				return map[string]any{"input": map[string]any{"conversationId": c, "seq": 1}}
			},
		},
	}
	// Reading as a participant first fills whatever is cached by id.
	for _, c := range at(stack, ann) {
		if m, err := c.Message(t.Context(), secret.ID); err != nil || m == nil {
			t.Fatalf("a participant reads %v, %v", m, err)
		}
	}
	for _, tt := range tests {
		for _, c := range at(stack, eve) {
			foreign := answer(t, c, tt.query, tt.variables(secret.ID, secret.ConversationID))
			absent := answer(t, c, tt.query, tt.variables(absentID(t, secret.ID), absentID(t, secret.ConversationID)))
			if foreign != absent {
				t.Errorf("%s: for what is others' the answer is\n%s\nand for what is nobody's\n%s", tt.name, foreign, absent)
			}
		}
	}
	if c, err := eve.ConversationWith(t.Context(), ann.User.ID); c != nil || err != nil {
		t.Errorf("eve's conversation with ann is %v, %v", c, err)
	}
	if all, err := eve.AllConversations(t.Context()); len(all) > 0 || err != nil {
		t.Errorf("eve lists %v, %v", all, err)
	}
	if got := history(t, ann, secret.ConversationID); len(got) != 2 {
		t.Errorf("the conversation has %d messages after eve's attempts, want 2", len(got))
	}
}

func TestWithoutATokenNothingIsAnswered(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann := account(t, stack, "Ann")
	for name, token := range map[string]string{"none": "", "garbage": "garbage", "a changed one": ann.Token[:len(ann.Token)-6] + "AAAAAA"} {
		c := ann.As(ann.User, token)
		if _, err := c.Me(t.Context()); client.Code(err) != "UNAUTHENTICATED" {
			t.Errorf("with the token %q, me fails with %v", name, err)
		}
		if _, err := c.Send(t.Context(), client.Draft{
			RecipientID: ann.User.ID, Body: "hello", ClientID: ids.New().String(),
		}); client.Code(err) != "UNAUTHENTICATED" {
			t.Errorf("with the token %q, sendMessage fails with %v", name, err)
		}
		if sub, err := c.Subscribe(t.Context(), ""); err == nil {
			s := newStream(t, name, sub.Events(), sub.Err, sub.Socket().Close)
			if err := s.failure(t); client.Retryable(err) {
				t.Errorf("with the token %q, a subscription fails with %v", name, err)
			}
		}
	}
}

func TestSixteenSendersIntoOneConversationAreNumberedWithoutAGapAndSeenInThatOrder(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	var streams []*stream
	for _, c := range []*client.Client{ann, bob} {
		after := cursor(t, c)
		for _, endpoint := range stack.Endpoints() {
			streams = append(streams, follow(t, c, after, endpoint))
		}
	}
	const senders, each = 16, 15
	var (
		mu   sync.Mutex
		sent []client.Message
	)
	parallel(senders, func(i int) {
		from, to := ann, bob
		if i%2 == 1 {
			from, to = bob, ann
		}
		from = at(stack, from)[i/2%len(stack.Graphs)]
		for n := range each {
			m, err := from.Send(t.Context(), client.Draft{
				RecipientID: to.User.ID, Body: fmt.Sprintf("message %d of sender %d", n, i), ClientID: ids.New().String(),
			})
			if err != nil {
				t.Errorf("sender %d: %v", i, err)
				return
			}
			mu.Lock()
			sent = append(sent, m)
			mu.Unlock()
		}
	})
	if t.Failed() {
		return
	}
	slices.SortFunc(sent, func(a, b client.Message) int { return a.Seq - b.Seq })
	for i, m := range sent {
		if m.Seq != i+1 {
			t.Fatalf("the numbers acknowledged have %d in place %d", m.Seq, i+1)
		}
	}
	for _, c := range slices.Concat(at(stack, ann), at(stack, bob)) {
		got := history(t, c, sent[0].ConversationID)
		if len(got) != len(sent) {
			t.Fatalf("%s reads %d messages, want %d", c.User.Username, len(got), len(sent))
		}
		for i, m := range got {
			if m.Seq != i+1 || m.ID != sent[i].ID || m.Body != sent[i].Body || m.Sender != sent[i].Sender {
				t.Fatalf("%s reads %+v in place %d, want %+v", c.User.Username, m, i+1, sent[i])
			}
		}
	}
	for _, s := range streams {
		wantOnceInOrder(t, s.name, s.count(t, len(sent)), sent)
	}
}

// answer returns the text of the response to an operation.
func answer(t *testing.T, c *client.Client, query string, variables map[string]any) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		t.Fatal(err)
	}
	status, text, err := c.Post(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", status, text)
}

// absentID returns an id of the same form as another, of something that does not exist.
func absentID(t *testing.T, id string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(raw) < 17 {
		t.Fatalf("the id %q is not made as this test expects: %v", id, err)
	}
	// The last random bytes of the UUID that follows the byte of the type.
	for i := 11; i < 17; i++ {
		raw[i] ^= 0x5a
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// retype returns an id of the same number as another, of another type.
func retype(t *testing.T, id string, kind byte) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(raw) < 17 {
		t.Fatalf("the id %q is not made as this test expects: %v", id, err)
	}
	raw[0] = kind
	return base64.RawURLEncoding.EncodeToString(raw)
}
