package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatapp.dev/api"
	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/ids"
)

// wantResult receives an event.
func wantResult(t *testing.T, f flow, body string) {
	t.Helper()
	payload, end := f.next(t)
	if end != nil {
		t.Fatalf("instead of the event %q the operation ends: %s", body, end.code())
	}
	if got := eventBody(payload); got != body {
		t.Fatalf("got the event %q, want %q", got, body)
	}
}

// wantEnd waits for the operation to end.
func wantEnd(t *testing.T, f flow, code string) {
	t.Helper()
	payload, end := f.next(t)
	if end == nil {
		t.Fatalf("got %s, want %s", payload, code)
	}
	if end.code() != code {
		t.Fatalf("the operation ends with %s, want %s", end.code(), code)
	}
}

func TestEveryWireYieldsLiveEventsInOrder(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	onEveryWire(t, func(t *testing.T, w wire) {
		ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
		f := w.subscribe(t, ann, cursor(t, ann))
		begun := time.Now()
		for i := range 20 {
			body := fmt.Sprintf("message %d\r\n--graphql--\n\ndata: \u2028 \"größer\" 🙂 \t", i)
			from, to := bob, ann
			if i%3 == 0 {
				from, to = ann, bob
			}
			if _, err := at(stack, from)[i%len(stack.Graphs)].Send(t.Context(), client.Draft{
				RecipientID: to.User.ID, Body: body, ClientID: ids.New().String(),
			}); err != nil {
				t.Fatal(err)
			}
			// One by one, so that an event that is kept back until the next would be missed, and one that is kept back
			// until a heartbeat takes far too long.
			wantResult(t, f, strings.TrimSpace(strings.ReplaceAll(body, "\r\n", "\n")))
		}
		if took := time.Since(begun); took > patience {
			t.Errorf("20 events took %v", took)
		}
		f.stop(t)
	})
}

func TestEveryWireResumesAfterACursorWithAllThatWasMissedAndThenLive(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	const missed = 300
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	after := cursor(t, ann)
	for i := range missed {
		send(t, bob, ann, fmt.Sprint("missed ", i))
	}
	flows := make([]flow, len(wires))
	for i, w := range wires {
		flows[i] = w.subscribe(t, at(stack, ann)[i%len(stack.Graphs)], after)
	}
	send(t, bob, ann, "live 1")
	send(t, ann, ann, "live 2")
	// What is said is the same to the byte, whatever carries it.
	var want []string
	for i, w := range wires {
		var got []string
		for range missed + 2 {
			payload, end := flows[i].next(t)
			if end != nil {
				t.Fatalf("%s: after %d events the operation ends: %s", w.name, len(got), end.code())
			}
			if n := len(got); n < missed && eventBody(payload) != fmt.Sprint("missed ", n) {
				t.Fatalf("%s: event %d is %s", w.name, n, payload)
			}
			got = append(got, string(payload))
		}
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s does not yield the same as %s", w.name, wires[0].name)
		}
		// The last but one is resumed from elsewhere, by another wire.
		f := wires[(i+1)%len(wires)].subscribe(t, at(stack, ann)[(i+1)%len(stack.Graphs)], cursorOfEvent(t, got[missed]))
		wantResult(t, f, "live 2")
		f.stop(t)
	}
}

// cursorOfEvent reads the cursor of an event.
func cursorOfEvent(t *testing.T, payload string) string {
	t.Helper()
	var event struct {
		Data struct{ NewMessage struct{ Cursor string } }
	}
	if err := json.Unmarshal([]byte(payload), &event); err != nil {
		t.Fatal(err)
	}
	return event.Data.NewMessage.Cursor
}

func TestEveryWireRefusesWhatMayNotBeginWithAClearCode(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, eve := account(t, stack, "Ann"), account(t, stack, "Eve")
	nobody := ann.As(client.User{}, "")
	after, others := cursor(t, ann), cursor(t, eve)
	for _, tt := range []struct {
		name      string
		who       *client.Client
		query     string
		variables map[string]any
		code      string
	}{
		{"a cursor that is none", ann, newMessage, map[string]any{"after": "none"}, "CURSOR_INVALID"},
		{"somebody else's cursor", ann, newMessage, map[string]any{"after": others}, "CURSOR_INVALID"},
		{"somebody else's cursor, by somebody else", eve, newMessage, map[string]any{"after": after}, "CURSOR_INVALID"},
		{"nobody", nobody, newMessage, map[string]any{"after": after}, "UNAUTHENTICATED"},
		{"an unknown field", ann, "subscription { nothing }", nil, "GRAPHQL_VALIDATION_FAILED"},
		{"no GraphQL", ann, "subscription {", nil, "GRAPHQL_PARSE_FAILED"},
		{"a variable that is missing", ann, "subscription ($after: Cursor!) { newMessage(after: $after) { cursor } }", nil, "BAD_USER_INPUT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			onEveryWire(t, func(t *testing.T, w wire) {
				wantEnd(t, w.open(t, tt.who, tt.query, tt.variables), tt.code)
			})
		})
	}
}

func TestEveryWireEndsWithUnauthenticatedWhenTheTokenExpires(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann := account(t, stack, "Ann")
	// Signed before any of them is opened: all wait for the same moment.
	short := ann.As(ann.User, tokenFor(t, stack, ann, 8*time.Second))
	flows := make([]flow, len(wires))
	for i, w := range wires {
		flows[i] = w.subscribe(t, short, cursor(t, ann))
	}
	send(t, ann, ann, "in time")
	for i, w := range wires {
		t.Run(w.name, func(t *testing.T) {
			wantResult(t, flows[i], "in time")
			wantEnd(t, flows[i], "UNAUTHENTICATED")
		})
	}
}

func TestEveryWireYieldsTheOneResultOfAQueryAndOfAMutation(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	onEveryWire(t, func(t *testing.T, w wire) {
		ann := account(t, stack, "Ann")
		f := w.open(t, ann, "{ me { username } }", nil)
		if payload, end := f.next(t); end != nil || string(payload) != `{"data":{"me":{"username":"`+ann.User.Username+`"}}}` {
			t.Errorf("the query yields %s, %+v", payload, end)
		}
		wantEnd(t, f, "completed")

		draft := client.Draft{RecipientID: ann.User.ID, Body: "once", ClientID: ids.New().String()}
		f = w.open(t, ann, client.SendQuery, map[string]any{"input": draft.Input()})
		payload, end := f.next(t)
		if end != nil && strings.Contains(w.name, "GET") {
			// Where a mutation is not allowed, nothing is executed either.
			if got, err := ann.ConversationWith(t.Context(), ann.User.ID); err != nil || got != nil {
				t.Errorf("a mutation by GET was executed: %+v, %v", got, err)
			}
			return
		}
		if end != nil || !strings.Contains(string(payload), `"body":"once"`) {
			t.Errorf("the mutation yields %s, %+v", payload, end)
		}
		wantEnd(t, f, "completed")
	})
}

// subscribers counts those who listen to a user's channel in Redis, which each process does that has a subscription of
// the user.
func subscribers(ctx context.Context, rdb *redis.Client, user ids.ID) (int64, error) {
	channel := api.UserChannel(user.String())
	counts, err := rdb.PubSubNumSub(ctx, channel).Result()
	return counts[channel], err
}

// redisOf opens a stack's Redis, to look at what no client can see.
func redisOf(t *testing.T, stack *harness.Stack) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(stack.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(options)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestOnEveryWireTheServerForgetsASubscriptionThatTheClientStops(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	rdb := redisOf(t, stack)
	onEveryWire(t, func(t *testing.T, w wire) {
		ann := account(t, stack, "Ann")
		user, _ := claimsOf(t, ann.Token)
		f := w.subscribe(t, ann, cursor(t, ann))
		send(t, ann, ann, "heard")
		wantResult(t, f, "heard")
		if n, err := subscribers(t.Context(), rdb, user); err != nil || n != 1 {
			t.Fatalf("Redis has %d subscriptions, %v", n, err)
		}
		f.stop(t)
		eventually(t, "the server forgets the subscription", func(ctx context.Context) (bool, error) {
			n, err := subscribers(ctx, rdb, user)
			return n == 0, err
		})
	})
}

func TestASingleConnectionCarriesManyOperationsAndOnlyItsOwners(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	open := func(t *testing.T) (*singleFlow, *client.Client) {
		t.Helper()
		ann := account(t, stack, "Ann")
		f, ok := openSingle(false)(t, ann, newMessage, map[string]any{"after": cursor(t, ann)}).(*singleFlow)
		if !ok {
			t.Fatal("the operation is refused")
		}
		return f, ann
	}
	post := func(t *testing.T, f *singleFlow, who *client.Client, id any, query string, variables map[string]any) *reply {
		t.Helper()
		var extensions map[string]any
		if id != nil {
			extensions = map[string]any{"operationId": id}
		}
		return request(t, who, http.MethodPost, f.endpoint,
			parameters{Query: query, Variables: variables, Extensions: extensions}, append(f.header, "Accept: application/json")...)
	}
	t.Run("operations beside each other", func(t *testing.T) {
		t.Parallel()
		f, ann := open(t)
		if answer := post(t, f, ann, "2", "{ me { username } }", nil); answer.StatusCode != http.StatusAccepted {
			t.Fatalf("a second operation is answered with %s", answer.Status)
		}
		payload, end := f.result(t, "2")
		if end != nil || string(payload) != `{"data":{"me":{"username":"`+ann.User.Username+`"}}}` {
			t.Errorf("the query yields %s, %+v", payload, end)
		}
		if _, end = f.result(t, "2"); end == nil || end.code() != "completed" {
			t.Errorf("the query ends with %v", end)
		}
		send(t, ann, ann, "to the first")
		wantResult(t, f, "to the first")
		// The id is free again once the operation is over, and not before.
		if answer := post(t, f, ann, "2", newMessage, map[string]any{"after": cursor(t, ann)}); answer.StatusCode != http.StatusAccepted {
			t.Errorf("an id that is free is answered with %s", answer.Status)
		}
		if answer := post(t, f, ann, "2", newMessage, nil); answer.StatusCode != http.StatusConflict {
			t.Errorf("an id that is taken is answered with %s", answer.Status)
		}
		f.stop(t)
		send(t, ann, ann, "to the second")
		if payload, end := f.result(t, "2"); end != nil || eventBody(payload) != "to the second" {
			t.Errorf("the second yields %s, %+v", payload, end)
		}
	})
	t.Run("an operation without an id", func(t *testing.T) {
		t.Parallel()
		f, ann := open(t)
		for _, id := range []any{nil, ""} {
			if answer := post(t, f, ann, id, "{ me { id } }", nil); answer.StatusCode != http.StatusBadRequest {
				t.Errorf("the id %v is answered with %s", id, answer.Status)
			}
		}
	})
	t.Run("a second stream for one reservation", func(t *testing.T) {
		t.Parallel()
		f, ann := open(t)
		answer := request(t, ann, http.MethodGet, f.endpoint, nil, append(f.header, "Accept: text/event-stream")...)
		if answer.StatusCode != http.StatusConflict {
			t.Errorf("it is answered with %s", answer.Status)
		}
	})
	t.Run("somebody else", func(t *testing.T) {
		t.Parallel()
		f, ann := open(t)
		// Whoever has got hold of the token cannot run anything in its owner's name, nor put something into their stream.
		for name, who := range map[string]*client.Client{"another user": account(t, stack, "Eve"), "nobody": ann.As(client.User{}, "")} {
			if answer := post(t, f, who, "3", "{ me { username } }", nil); answer.StatusCode < 400 {
				t.Errorf("an operation of %s is answered with %s", name, answer.Status)
			}
			answer := request(t, who, http.MethodDelete, f.endpoint+"?operationId="+strings.ReplaceAll(f.id, " ", "%20"), nil, f.header...)
			if answer.StatusCode < 400 {
				t.Errorf("%s may end an operation: %s", name, answer.Status)
			}
		}
		send(t, ann, ann, "undisturbed")
		wantResult(t, f, "undisturbed")
	})
	t.Run("a token that nobody was given", func(t *testing.T) {
		t.Parallel()
		ann := account(t, stack, "Ann")
		const header = "X-GraphQL-Event-Stream-Token: none"
		for method, headers := range map[string][]string{
			http.MethodGet: {"Accept: text/event-stream", header}, http.MethodDelete: {header},
		} {
			answer := request(t, ann, method, ann.Endpoint()+"?operationId=1", nil, headers...)
			if answer.StatusCode < 400 || answer.StatusCode >= 500 {
				t.Errorf("%s is answered with %s", method, answer.Status)
			}
		}
		answer := request(t, ann, http.MethodPost, ann.Endpoint(), parameters{
			Query: "{ me { id } }", Extensions: map[string]any{"operationId": "1"},
		}, "Accept: application/json", header)
		if answer.StatusCode != http.StatusNotFound {
			t.Errorf("an operation is answered with %s", answer.Status)
		}
	})
	t.Run("without anybody's token", func(t *testing.T) {
		t.Parallel()
		answer := request(t, client.New(stack.Endpoints()[0]), http.MethodPut, stack.Endpoints()[0], nil)
		if answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("a reservation is answered with %s", answer.Status)
		}
	})
}

func TestWhenAProcessDrainsEveryWireEndsSoThatClientsComeBackAndMissNothing(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Graphs: 2, Env: []string{"GRAPH_SOCKET_DRAIN=1s", patientPings}}))
	ann := account(t, stack, "Ann")
	elsewhere := ann.At(stack.Endpoints()[1])
	after := cursor(t, ann)
	flows := make([]flow, len(wires))
	for i, w := range wires {
		flows[i] = w.subscribe(t, ann, after)
	}
	send(t, ann, ann, "before")
	for _, f := range flows {
		wantResult(t, f, "before")
	}
	waiting, idle := dialRaw(t, ann.Endpoint()), connectRaw(t, ann)
	stopped := make(chan error, 1)
	go func() { stopped <- stack.Graphs[0].Stop() }()
	waiting.wantClose(1012)
	idle.wantClose(1012)
	for i, w := range wires {
		payload, end := flows[i].next(t)
		switch {
		case end == nil:
			t.Errorf("%s yields %s", w.name, payload)
		case strings.HasPrefix(w.name, "WebSocket"):
			if !strings.Contains(end.code(), "1012") {
				t.Errorf("%s ends with %s", w.name, end.code())
			}
		case strings.HasPrefix(w.name, "SSE"):
			// Neither a result nor complete, so that the client knows that there is more.
			if end.broken == nil {
				t.Errorf("%s ends with %s", w.name, end.code())
			}
		case end.code() != "UNAVAILABLE":
			t.Errorf("%s ends with %s", w.name, end.code())
		}
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	send(t, elsewhere, ann, "meanwhile")
	for _, w := range wires {
		f := w.subscribe(t, elsewhere, after)
		wantResult(t, f, "before")
		wantResult(t, f, "meanwhile")
	}
}
