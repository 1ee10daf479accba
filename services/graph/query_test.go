package graph

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

func TestMeIsTheCaller(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	r := s.post(t, ada.token, `{ me { id username displayName __typename } }`, nil)
	want := fmt.Sprintf(`{"data":{"me":{"id":%q,"username":"ada","displayName":"ADA","__typename":"User"}}}`, userID(ada.id))
	if got := strings.TrimSpace(r.Raw); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestUserByID(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	for name, test := range map[string]struct{ id, want string }{
		"known":             {userID(bob.id), `{"user":{"username":"bob"}}`},
		"unknown":           {userID(ids.New()), `{"user":null}`},
		"of something else": {conversationID(bob.id), `{"user":null}`},
		"malformed":         {"bob", `{"user":null}`},
		"empty":             {"", `{"user":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.post(t, ada.token, `query($id: ID!) { user(id: $id) { username } }`, map[string]any{"id": test.id})
			if string(r.Data) != test.want || len(r.Errors) > 0 {
				t.Errorf("got %s, want %s", r.Raw, test.want)
			}
		})
	}
}

type userPage struct {
	Users struct {
		Edges []struct {
			Cursor string
			Node   struct{ Username string }
		}
		PageInfo pageInfo
	}
}

type pageInfo struct {
	HasPreviousPage, HasNextPage bool
	StartCursor, EndCursor       *string
}

const usersQuery = `query($search: String, $first: Int, $after: String) {
	users(search: $search, first: $first, after: $after) {
		edges { cursor node { username } }
		pageInfo { hasPreviousPage hasNextPage startCursor endCursor }
	}
}`

func TestUsersPagesReachEveryUserOnce(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	var want []string
	for i := range 7 {
		want = append(want, s.add(t, fmt.Sprintf("user-%d", i)).name)
	}
	var got []string
	variables := map[string]any{"search": "user", "first": 3}
	for page := range 3 {
		users := ask[userPage](t, s, ada.token, usersQuery, variables).Users
		for _, edge := range users.Edges {
			got = append(got, edge.Node.Username)
		}
		info := users.PageInfo
		if info.HasPreviousPage != (page > 0) || info.HasNextPage != (page < 2) {
			t.Errorf("page %d: %+v", page, info)
		}
		if *info.StartCursor != users.Edges[0].Cursor || *info.EndCursor != users.Edges[len(users.Edges)-1].Cursor {
			t.Errorf("page %d: the cursors of the ends are not those of pageInfo", page)
		}
		variables["after"] = *info.EndCursor
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyPageTellsWhetherMoreFollows(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	s.add(t, "bob")
	users := ask[userPage](t, s, ada.token, usersQuery, map[string]any{"first": 0}).Users
	if len(users.Edges) != 0 || !users.PageInfo.HasNextPage || users.PageInfo.EndCursor != nil {
		t.Errorf("first: 0 gives %+v", users)
	}
}

// history is a query for messages with arguments written out.
func history(arguments string) string {
	if arguments != "" {
		arguments = "(" + arguments + ")"
	}
	return `query($id: ID!) { conversation(id: $id) { messages` + arguments + ` {
		edges { cursor node { seq } }
		pageInfo { hasPreviousPage hasNextPage startCursor endCursor }
	} } }`
}

type historyPage struct {
	Conversation struct {
		Messages struct {
			Edges []struct {
				Cursor string
				Node   struct{ Seq int }
			}
			PageInfo pageInfo
		}
	}
}

func TestHistoryPages(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	var conversation ids.ID
	for i := range 40 {
		conversation = ids.ID(s.send(ada, bob, fmt.Sprint(i)).ConversationId)
	}
	variables := map[string]any{"id": conversationID(conversation)}
	// The cursors are opaque, so they come from a page.
	all := ask[historyPage](t, s, ada.token, history("first: 40"), variables).Conversation.Messages.Edges
	cursor := func(seq int) string { return all[seq-1].Cursor }

	for _, test := range []struct {
		arguments      string
		from, to       int // 0, 0 for an empty page
		previous, next bool
	}{
		{"", 26, 40, true, false},
		{"first: null, after: null, last: null, before: null", 26, 40, true, false},
		{"last: 15", 26, 40, true, false},
		{"first: 15", 1, 15, false, true},
		{"first: 100", 1, 40, false, false},
		{"last: 100", 1, 40, false, false},
		{"first: 0", 0, 0, false, true},
		{fmt.Sprintf("first: 5, after: %q", cursor(10)), 11, 15, true, true},
		{fmt.Sprintf("last: 5, before: %q", cursor(10)), 5, 9, true, true},
		{fmt.Sprintf("after: %q", cursor(10)), 11, 25, true, true},
		{fmt.Sprintf("before: %q", cursor(10)), 1, 9, false, true},
		{fmt.Sprintf("first: 15, after: %q", cursor(30)), 31, 40, true, false},
		{fmt.Sprintf("first: 15, after: %q, before: %q", cursor(3), cursor(6)), 4, 5, true, true},
		{fmt.Sprintf("last: 2, after: %q, before: %q", cursor(3), cursor(30)), 28, 29, true, true},
	} {
		t.Run(test.arguments, func(t *testing.T) {
			page := ask[historyPage](t, s, ada.token, history(test.arguments), variables).Conversation.Messages
			var got []int
			for _, edge := range page.Edges {
				got = append(got, edge.Node.Seq)
			}
			var want []int
			for seq := test.from; seq > 0 && seq <= test.to; seq++ {
				want = append(want, seq)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if page.PageInfo.HasPreviousPage != test.previous || page.PageInfo.HasNextPage != test.next {
				t.Errorf("previous %v, next %v", page.PageInfo.HasPreviousPage, page.PageInfo.HasNextPage)
			}
		})
	}
}

func TestWrongPageArgumentsAreNamed(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	conversation := ids.ID(s.send(ada, ada, "note").ConversationId)
	history := func(arguments string) string {
		return `{ conversation(id: "` + conversationID(conversation) + `") { messages(` + arguments + `) { edges { cursor } } } }`
	}
	for _, test := range []struct{ query, argument, rule string }{
		{history("first: 1, last: 1"), "last", "INVALID_FORMAT"},
		{history("first: -1"), "first", "OUT_OF_RANGE"},
		{history("first: 101"), "first", "OUT_OF_RANGE"},
		{history("first: 2147483647"), "first", "OUT_OF_RANGE"},
		{history("last: -1"), "last", "OUT_OF_RANGE"},
		{history("last: 101"), "last", "OUT_OF_RANGE"},
		{history(`after: "x"`), "after", "INVALID_FORMAT"},
		{history(`before: ""`), "before", "INVALID_FORMAT"},
		{`{ users(first: -1) { edges { cursor } } }`, "first", "OUT_OF_RANGE"},
		{`{ users(first: 101) { edges { cursor } } }`, "first", "OUT_OF_RANGE"},
		{`{ users(after: "x") { edges { cursor } } }`, "after", "INVALID_FORMAT"},
		{`{ users(search: "` + strings.Repeat("x", 1025) + `") { edges { cursor } } }`, "search", "TOO_LONG"},
		{`{ conversations(first: -1) { edges { cursor } } }`, "first", "OUT_OF_RANGE"},
		{`{ conversations(first: 101) { edges { cursor } } }`, "first", "OUT_OF_RANGE"},
		{`{ conversations(after: "x") { edges { cursor } } }`, "after", "INVALID_FORMAT"},
	} {
		t.Run(test.query[:min(len(test.query), 120)], func(t *testing.T) {
			r := s.post(t, ada.token, test.query, nil)
			if r.code() != "BAD_USER_INPUT" || r.Errors[0].Extensions["argument"] != test.argument ||
				r.Errors[0].Extensions["rule"] != test.rule || !strings.Contains(r.Errors[0].Message, test.argument) {
				t.Errorf("got %s", r.Raw)
			}
		})
	}
}

func TestConversationsByLastActivity(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	var names []string
	for i := range 5 {
		other := s.add(t, fmt.Sprintf("other-%d", i))
		s.send(other, ada, "hello")
		names = append([]string{other.name}, names...)
	}
	type page struct {
		Conversations struct {
			Edges []struct {
				Node struct {
					With        struct{ Username string }
					UnreadCount int
					ReadSeq     int
					LastMessage struct{ Body string }
				}
			}
			PageInfo pageInfo
		}
	}
	var got []string
	variables := map[string]any{"first": 2}
	for range 3 {
		conversations := ask[page](t, s, ada.token, `query($first: Int, $after: String) {
			conversations(first: $first, after: $after) {
				edges { node { with { username } unreadCount readSeq lastMessage { body } } }
				pageInfo { hasPreviousPage hasNextPage startCursor endCursor }
			}
		}`, variables).Conversations
		for _, edge := range conversations.Edges {
			if edge.Node.UnreadCount != 1 || edge.Node.ReadSeq != 0 || edge.Node.LastMessage.Body != "hello" {
				t.Errorf("got %+v", edge.Node)
			}
			got = append(got, edge.Node.With.Username)
		}
		variables["after"] = *conversations.PageInfo.EndCursor
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Error(diff)
	}
}

func TestOthersConversationsDoNotExist(t *testing.T) {
	s := start(t, nil)
	ada, bob, eve := s.add(t, "ada"), s.add(t, "bob"), s.add(t, "eve")
	sent := s.send(ada, bob, "secret")
	conversation := ids.ID(sent.ConversationId)
	for _, test := range []struct{ query, theirs, nobodys string }{
		{
			`query($id: ID!) { conversation(id: $id) { id with { username } lastMessage { body } messages { edges { node { body } } } } }`,
			conversationID(conversation), conversationID(ids.New()),
		},
		{
			`query($id: ID!) { message(id: $id) { id body conversation { id } } }`,
			messageID(conversation, 1), messageID(ids.New(), 1),
		},
		{
			`query($id: ID!) { node(id: $id) { id ... on Conversation { unreadCount } } }`,
			conversationID(conversation), conversationID(ids.New()),
		},
		{
			`query($id: ID!) { node(id: $id) { id ... on Message { body } } }`,
			messageID(conversation, 1), messageID(ids.New(), 1),
		},
		{
			`mutation($id: ID!) { markRead(input: {conversationId: $id, seq: 1}) { conversation { id } userErrors { code message field } } }`,
			conversationID(conversation), conversationID(ids.New()),
		},
		{
			`mutation($id: ID!) { sendMessage(input: {conversationId: $id, body: "x", clientId: "` + ids.New().String() +
				`"}) { message { id } userErrors { code message field } } }`,
			conversationID(conversation), conversationID(ids.New()),
		},
	} {
		t.Run(test.query, func(t *testing.T) {
			theirs := s.post(t, eve.token, test.query, map[string]any{"id": test.theirs})
			nobodys := s.post(t, eve.token, test.query, map[string]any{"id": test.nobodys})
			if theirs.Raw != nobodys.Raw || theirs.Status != nobodys.Status {
				t.Errorf("somebody else's looks like %s, nobody's like %s", theirs.Raw, nobodys.Raw)
			}
			if strings.Contains(theirs.Raw, "secret") || len(theirs.Errors) > 0 {
				t.Errorf("got %s", theirs.Raw)
			}
			mine := s.post(t, ada.token, test.query, map[string]any{"id": test.theirs})
			if mine.Raw == theirs.Raw {
				t.Errorf("a participant sees no more: %s", mine.Raw)
			}
		})
	}
}

func TestNodeFindsEveryKind(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	conversation := ids.ID(s.send(ada, bob, "hello").ConversationId)
	for id, want := range map[string]string{
		userID(bob.id):               "User",
		conversationID(conversation): "Conversation",
		messageID(conversation, 1):   "Message",
	} {
		r := s.post(t, ada.token, `query($id: ID!) { node(id: $id) { __typename id } }`, map[string]any{"id": id})
		if want := fmt.Sprintf(`{"node":{"__typename":%q,"id":%q}}`, want, id); string(r.Data) != want {
			t.Errorf("got %s, want %s", r.Raw, want)
		}
	}
	for _, id := range []string{"", "x", messageID(conversation, 2), userID(ids.New()), messageID(conversation, -1)} {
		r := s.post(t, ada.token, `query($id: ID!) { node(id: $id) { id } }`, map[string]any{"id": id})
		if string(r.Data) != `{"node":null}` || len(r.Errors) > 0 {
			t.Errorf("node(id: %q): %s", id, r.Raw)
		}
	}
}

func TestMessageLooksTheSameFromEverywhere(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	sent := s.send(ada, bob, "héllo <&> 👋🏽")
	conversation := ids.ID(sent.ConversationId)
	const fields = `{ id seq body sentAt clientId sender { username } conversation { id with { username } } }`
	id := messageID(conversation, 1)
	for name, test := range map[string]struct{ query, start, end string }{
		"message": {`query($id: ID!) { message(id: $id) ` + fields + ` }`, `{"message":`, `}`},
		"node":    {`query($id: ID!) { node(id: $id) { ... on Message ` + fields + ` } }`, `{"node":`, `}`},
	} {
		t.Run(name, func(t *testing.T) {
			want := fmt.Sprintf(`{"id":%q,"seq":1,"body":"héllo <&> 👋🏽","sentAt":"2025-06-01T09:30:00.124456Z",`+
				`"clientId":%q,"sender":{"username":"ada"},"conversation":{"id":%q,"with":{"username":"bob"}}}`,
				id, sent.ClientId, conversationID(conversation))
			r := s.post(t, ada.token, test.query, map[string]any{"id": id})
			if got := string(r.Data); got != test.start+want+test.end {
				t.Errorf("the sender sees %s, want %s", got, test.start+want+test.end)
			}
			r = s.post(t, bob.token, test.query, map[string]any{"id": id})
			if !strings.Contains(string(r.Data), `"clientId":null`) {
				t.Errorf("the recipient sees %s", r.Raw)
			}
		})
	}
}

func TestTheCursorIsReadBeforeTheListsOfItsOperation(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	s.send(bob, ada, "hello")
	listed := make(chan struct{}, 1)
	s.hook("ListConversations", func() { listed <- struct{}{} })
	s.hook("GetCursor", func() {
		// Lists that do not wait for the cursor come within this time.
		select {
		case <-listed:
			t.Error("the list was read while the cursor had not been")
		case <-time.After(100 * time.Millisecond):
		}
	})
	got := s.counted(func() {
		r := s.post(t, ada.token, `{ conversations { edges { node { id } } } ...place me { id } }
			fragment place on Query { cursor }`, nil)
		if want := `"cursor":"` + cursorOf(ada.id, 1) + `"`; len(r.Errors) > 0 || !strings.Contains(r.Raw, want) {
			t.Errorf("got %s, want %s in it", r.Raw, want)
		}
	})
	if got["GetCursor"] != 1 || got["ListConversations"] != 1 {
		t.Errorf("calls: %v", got)
	}
}

func TestCallsPerOperation(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	var conversation ids.ID
	for i := range 40 {
		from, to := ada, bob
		if i%2 == 0 {
			from, to = bob, ada
		}
		conversation = ids.ID(s.send(from, to, fmt.Sprint(i)).ConversationId)
	}
	for i := range 14 {
		s.send(s.add(t, fmt.Sprintf("other-%d", i)), ada, "hello")
	}
	const messages = `messages(last: 15) { edges { node { body sender { displayName } } } pageInfo { hasPreviousPage } }`
	const screen = `{ id with { displayName } lastMessage { body sender { username } } unreadCount ` + messages + ` }`
	for name, test := range map[string]struct {
		query string
		want  map[string]int
	}{
		"a conversation's screen": {
			`query($id: ID!) { conversation(id: $id) ` + screen + ` }`,
			map[string]int{"BatchGetConversations": 1, "BatchGetUsers": 1},
		},
		"the conversation with somebody": {
			`query($bob: ID!) { conversationWith(userId: $bob) ` + screen + ` }`,
			map[string]int{"GetConversationWith": 1, "BatchGetUsers": 1},
		},
		"a conversation as a node": {
			`query($id: ID!) { node(id: $id) { id ... on Conversation ` + screen + ` } }`,
			map[string]int{"BatchGetConversations": 1, "BatchGetUsers": 1},
		},
		"through a fragment": {
			`query($id: ID!) { conversation(id: $id) { ...screen } } fragment screen on Conversation ` + screen,
			map[string]int{"BatchGetConversations": 1, "BatchGetUsers": 1},
		},
		"ids need no users": {
			`query($id: ID!) { conversation(id: $id) { with { id } messages { edges { node { sender { id __typename } } } } } }`,
			map[string]int{"BatchGetConversations": 1},
		},
		"without messages": {
			`query($id: ID!) { conversation(id: $id) { unreadCount messages @skip(if: true) { edges { cursor } } } }`,
			map[string]int{"BatchGetConversations": 1},
		},
		"two pages of one conversation": {
			`query($id: ID!) { conversation(id: $id) { a: messages(first: 1) { edges { node { sender { username } } } }
				b: messages(last: 1) { edges { node { sender { username } } } } } }`,
			map[string]int{"BatchGetConversations": 1, "BatchListMessages": 1, "BatchGetUsers": 1},
		},
		"the list": {
			`{ conversations { edges { node { id with { displayName } lastMessage { body sender { username } } unreadCount } } } }`,
			map[string]int{"ListConversations": 1, "BatchGetUsers": 1},
		},
		"the list with messages": {
			`{ conversations { edges { node ` + screen + ` } } }`,
			map[string]int{"ListConversations": 1, "BatchListMessages": 1, "BatchGetUsers": 1},
		},
		"a message": {
			`query($message: ID!) { message(id: $message) { body sender { username } } }`,
			map[string]int{"BatchGetMessages": 1, "BatchGetUsers": 1},
		},
		"oneself": {`{ me { username } }`, map[string]int{"BatchGetUsers": 1}},
		"found people": {
			`{ users(search: "o") { edges { node { id username displayName } } } }`,
			map[string]int{"SearchUsers": 1},
		},
		"sending": {
			`mutation($id: ID!) { sendMessage(input: {conversationId: $id, body: "x", clientId: "` + ids.New().String() +
				`"}) { message { id sender { username } } userErrors { code } } }`,
			map[string]int{"SendMessage": 1, "BatchGetUsers": 1},
		},
		"reading": {
			`mutation($id: ID!) { markRead(input: {conversationId: $id, seq: 3}) { conversation { readSeq with { username } } } }`,
			map[string]int{"MarkRead": 1, "BatchGetUsers": 1},
		},
		"the cursor": {`{ cursor }`, map[string]int{"GetCursor": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			variables := map[string]any{
				"id": conversationID(conversation), "bob": userID(bob.id), "message": messageID(conversation, 3),
			}
			got := s.counted(func() {
				if r := s.post(t, ada.token, test.query, variables); len(r.Errors) > 0 || strings.Contains(r.Raw, ":null") {
					t.Errorf("got %s", r.Raw)
				}
			})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestServiceThatFailsIsToldAsSuchAndNoMore(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	for name, test := range map[string]struct {
		err           error
		code, message string
	}{
		"internal":     {fmt.Errorf("dial tcp 10.0.0.7:3306: secret"), "INTERNAL_SERVER_ERROR", "something went wrong on our side"},
		"unavailable":  {errs.New(errs.Unavailable, "the database restarts"), "UNAVAILABLE", "the database restarts"},
		"rate limited": {errs.New(errs.RateLimited, "slow down"), "RATE_LIMITED", "slow down"},
		"forbidden":    {errs.New(errs.Forbidden, "not yours"), "FORBIDDEN", "not yours"},
	} {
		t.Run(name, func(t *testing.T) {
			s.fail("GetCursor", test.err)
			r := s.post(t, ada.token, `{ cursor }`, nil)
			if r.code() != test.code || r.Errors[0].Message != test.message {
				t.Errorf("got %s", r.Raw)
			}
			if id, _ := r.Errors[0].Extensions["traceId"].(string); len(id) != 32 {
				t.Errorf("traceId is %q", id)
			} else if test.code == "INTERNAL_SERVER_ERROR" && strings.Count(s.logs.String(), `"level":"ERROR"`) != 1 {
				t.Errorf("the cause is not logged once: %s", s.logs)
			} else if test.code == "INTERNAL_SERVER_ERROR" && !strings.Contains(s.logs.String(), id) {
				t.Errorf("the log does not name the trace %s: %s", id, s.logs)
			}
			if strings.Contains(r.Raw, "secret") {
				t.Errorf("internals leak: %s", r.Raw)
			}
		})
	}
}
