package e2e

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/npm"
)

// federatedStack starts a stack whose graph is a subgraph, as in production.
func federatedStack(t *testing.T) *harness.Stack {
	t.Helper()
	return ownStack(t, onSharedMySQL(t, harness.Options{Env: []string{"GRAPH_FEDERATION=true"}}))
}

// entity is what a router sends for a thing of another subgraph.
func entity(typeName, id string) map[string]any {
	return map[string]any{"__typename": typeName, "id": id}
}

// entities asks for entities as a router does.
func entities(t *testing.T, c *client.Client, representations ...any) ([]map[string]any, error) {
	t.Helper()
	var data struct {
		Entities []map[string]any `json:"_entities"`
	}
	err := c.Do(t.Context(), `query($representations: [_Any!]!) { _entities(representations: $representations) {
		... on User { displayName }
		... on Conversation { unreadCount }
		... on Message { body sender { displayName } }
	} }`, map[string]any{"representations": representations}, &data)
	return data.Entities, err
}

func TestARouterGetsWhatItsCallerMaySee(t *testing.T) {
	t.Parallel()
	stack := federatedStack(t)
	ada, bob, cyd := account(t, stack, "Ada"), account(t, stack, "Bob"), account(t, stack, "Cyd")
	sent := send(t, ada, bob, "Hello Bob")
	asked := []any{
		entity("Message", sent.ID), entity("Conversation", sent.ConversationID), entity("User", ada.User.ID),
		entity("Message", "garbage"), entity("User", sent.ID),
	}
	message := map[string]any{"body": "Hello Bob", "sender": map[string]any{"displayName": "Ada"}}
	user := map[string]any{"displayName": "Ada"}
	for _, test := range []struct {
		caller *client.Client
		want   []map[string]any
	}{
		{ada, []map[string]any{message, {"unreadCount": 0.0}, user, nil, nil}},
		{bob, []map[string]any{message, {"unreadCount": 1.0}, user, nil, nil}},
		{cyd, []map[string]any{nil, nil, user, nil, nil}},
	} {
		got, err := entities(t, test.caller, asked...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s, -want +got:\n%s", test.caller.User.DisplayName, diff)
		}
	}
}

func TestARouterIsRefusedWhatItMayNotAsk(t *testing.T) {
	t.Parallel()
	stack := federatedStack(t)
	ada := account(t, stack, "Ada")
	many := make([]any, 1000)
	for i := range many {
		many[i] = entity("User", ada.User.ID)
	}
	for name, test := range map[string]struct {
		caller          *client.Client
		representations []any
		status          int
		code            string
	}{
		"without a token":  {ada.As(client.User{}, ""), []any{entity("User", ada.User.ID)}, http.StatusUnauthorized, "UNAUTHENTICATED"},
		"no object":        {ada, []any{"User"}, http.StatusBadRequest, "BAD_USER_INPUT"},
		"an unknown type":  {ada, []any{entity("Session", ada.User.ID)}, http.StatusBadRequest, "BAD_USER_INPUT"},
		"a huge id":        {ada, []any{entity("User", strings.Repeat("x", 100_000))}, http.StatusBadRequest, "BAD_USER_INPUT"},
		"no id":            {ada, []any{map[string]any{"__typename": "User"}}, http.StatusBadRequest, "BAD_USER_INPUT"},
		"too many":         {ada, many, http.StatusBadRequest, "BAD_USER_INPUT"},
		"nothing of a lot": {ada, []any{map[string]any{}, nil}, http.StatusBadRequest, "BAD_USER_INPUT"},
	} {
		got, err := entities(t, test.caller, test.representations...)
		var refused *client.Errors
		if !errors.As(err, &refused) || refused.Status != test.status || client.Code(err) != test.code {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestTheSharedStackIsNoSubgraph(t *testing.T) {
	t.Parallel()
	ada := account(t, sharedFor(t), "Ada")
	for _, query := range []string{`{ _service { sdl } }`, `{ _entities(representations: []) { __typename } }`} {
		if err := ada.Do(t.Context(), query, nil, nil); client.Code(err) != "GRAPHQL_VALIDATION_FAILED" {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// TestAGatewayJoinsItWithAnotherSubgraph goes through Apollo's own composition and gateway: dev/clients/federation.mjs.
func TestAGatewayJoinsItWithAnotherSubgraph(t *testing.T) {
	t.Parallel()
	stack := federatedStack(t)
	ada, bob, cyd := account(t, stack, "Ada"), account(t, stack, "Bob"), account(t, stack, "Cyd")
	own, foreign := send(t, bob, ada, "Hello Countess"), send(t, bob, cyd, "Not for Ada")
	arg := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	out, err := npm.Run(t.Context(), npm.Script{
		Name: "federation.mjs",
		Args: []string{
			stack.Endpoints()[0],
			arg(map[string]string{ada.User.ID: "Countess", bob.User.ID: "Bobby"}),
			arg([]string{own.ID, foreign.ID}),
			`{ me { displayName nickname } }`,
			`{ nicknamed(nickname: "Bobby") { displayName nickname } }`,
			`{ conversations { edges { node { with { displayName nickname } lastMessage { body sender { nickname } } } } pageInfo { hasNextPage } } }`,
			`{ pinned { nodes { body sender { displayName nickname } } pageInfo { hasNextPage } } }`,
		},
		Env: []string{"TOKEN=" + ada.Token},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Data   any
		Errors []struct{ Message string }
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	type object = map[string]any
	bobby := object{"displayName": "Bob", "nickname": "Bobby"}
	for i, want := range []object{
		{"me": object{"displayName": "Ada", "nickname": "Countess"}},
		{"nicknamed": bobby},
		{"conversations": object{
			"edges": []any{object{"node": object{
				"with": bobby, "lastMessage": object{"body": "Hello Countess", "sender": object{"nickname": "Bobby"}},
			}}},
			"pageInfo": object{"hasNextPage": false},
		}},
		{"pinned": object{
			"nodes":    []any{object{"body": "Hello Countess", "sender": bobby}, nil},
			"pageInfo": object{"hasNextPage": false},
		}},
	} {
		if i >= len(got) {
			t.Fatalf("there are %d responses", len(got))
		}
		if diff := cmp.Diff(any(want), got[i].Data); diff != "" {
			t.Errorf("query %d: %v, -want +got:\n%s", i+1, got[i].Errors, diff)
		}
	}
}
