package e2e

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
)

// TestAPageOf15MessagesWithSendersCostsAtMost2SQLQueriesInEachService records what the services send to MySQL. (That it
// costs at most 2 calls to other services, graph's own tests count.)
func TestAPageOf15MessagesWithSendersCostsAtMost2SQLQueriesInEachService(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{TapSQL: true}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	var last client.Message
	for i := range 20 {
		from, to := ann, bob
		if i%2 == 1 {
			from, to = bob, ann
		}
		last = send(t, from, to, fmt.Sprint("message ", i))
	}
	for range 16 {
		send(t, ann, account(t, stack, "Peer"), "hello")
	}

	const message = `edges { cursor node { id seq body sentAt clientId sender { id username displayName } conversation { id } } }
		pageInfo { hasPreviousPage hasNextPage startCursor endCursor }`
	tests := []struct {
		name, query string
		variables   map[string]any
		alsoList    int // Queries of another page that is read on the way.
	}{
		{"the newest page of a conversation", `query Q($id: ID!) { conversation(id: $id) { id with { id displayName } unreadCount
			messages { ` + message + ` } } }`, map[string]any{"id": last.ConversationID}, 0},
		{
			"an older page", `query Q($id: ID!, $before: String) { conversation(id: $id) { messages(last: 15, before: $before) { ` + message + ` } } }`,
			map[string]any{"id": last.ConversationID, "before": cursorOf(t, ann, last.ConversationID, 18)},
			0,
		},
		{
			"the first page forwards", `query Q($id: ID!) { conversation(id: $id) { messages(first: 15) { ` + message + ` } } }`,
			map[string]any{"id": last.ConversationID},
			0,
		},
		{
			"by the other user", `query Q($id: ID!) { conversationWith(userId: $id) { messages { ` + message + ` } } }`,
			map[string]any{"id": bob.User.ID},
			0,
		},
		{
			"by node", `query Q($id: ID!) { node(id: $id) { ... on Conversation { messages { ` + message + ` } } } }`,
			map[string]any{"id": last.ConversationID},
			0,
		},
		{"the list of 15 conversations with their last messages", `{ conversations(first: 15) { edges { node { id unreadCount
			with { id displayName } lastMessage { body sender { displayName } } } } pageInfo { hasNextPage endCursor } } }`, nil, 0},
		{"15 conversations with a page of each", `{ conversations(first: 15) { edges { node { id with { id displayName }
			messages(last: 15) { ` + message + ` } } } } }`, nil, 1},
	}
	idle := background(stack)
	for _, tt := range tests {
		answer(t, ann, tt.query, tt.variables) // Connections are opened and caches filled.
		for _, service := range withSchema {
			stack.Tap(service).Reset()
		}
		text := answer(t, ann, tt.query, tt.variables)
		for _, service := range withSchema {
			var queries []string
			for _, command := range stack.Tap(service).Commands() {
				if shape := shapeOf(command); !idle[service][shape] {
					queries = append(queries, shape)
				}
			}
			if len(queries) > 2+tt.alsoList {
				t.Errorf("%s costs %d commands in %s: %q", tt.name, len(queries), service, queries)
			}
			if service == "messages" && len(queries) == 0 {
				t.Errorf("%s costs no command in messages, so nothing was counted; it is %.200s", tt.name, text)
			}
		}
	}
}

// background records what the services send to MySQL while nobody asks for anything.
func background(stack *harness.Stack) map[string]map[string]bool {
	for _, service := range withSchema {
		stack.Tap(service).Reset()
	}
	time.Sleep(5 * time.Second)
	idle := map[string]map[string]bool{}
	for _, service := range withSchema {
		idle[service] = map[string]bool{}
		for _, command := range stack.Tap(service).Commands() {
			idle[service][shapeOf(command)] = true
		}
	}
	return idle
}

var literals = regexp.MustCompile(`_binary'(?:[^'\\]|\\.|'')*'|'(?:[^'\\]|\\.|'')*'|\b\d+\b`)

// shapeOf is a command without its values.
func shapeOf(c harness.Command) string {
	return fmt.Sprintf("%#x %s", c.Code, literals.ReplaceAllString(c.Text, "?"))
}

// cursorOf returns the cursor of a message in its conversation.
func cursorOf(t *testing.T, c *client.Client, conversation string, seq int) string {
	t.Helper()
	page, err := c.History(t.Context(), conversation, client.Range{First: 100})
	if err != nil {
		t.Fatal(err)
	}
	return page.Cursors[seq-1]
}
