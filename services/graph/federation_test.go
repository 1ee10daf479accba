package graph

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

// federated starts the service as a subgraph, as in production.
func federated(t *testing.T) *server {
	t.Helper()
	return start(t, func(cfg *Config) { cfg.Federation = true })
}

const entitiesQuery = `query($representations: [_Any!]!) { _entities(representations: $representations) {
	__typename
	... on User { id username }
	... on Conversation { id with { id } }
	... on Message { id body }
} }`

// rep is what a router sends for an entity.
func rep(typeName, id string) map[string]any { return map[string]any{"__typename": typeName, "id": id} }

func reps(list ...any) map[string]any { return map[string]any{"representations": list} }

func TestWithoutFederationThereIsNothingOfIt(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	for _, query := range []string{
		`{ _service { sdl } }`,
		`{ _service { __typename } }`,
		`{ _entities(representations: []) { __typename } }`,
		`{ node(id: "x") { ... on _Entity { __typename } } }`,
		`query($x: _Any) { __typename }`,
	} {
		r := s.post(t, ada.token, query, nil)
		if r.code() != "GRAPHQL_VALIDATION_FAILED" || r.Data != nil {
			t.Errorf("%s: %d %s", query, r.Status, r.Raw)
		}
	}
}

func TestAnybodyMayReadTheSchemaOfASubgraph(t *testing.T) {
	s := federated(t)
	type service struct {
		Service struct {
			SDL      string
			Again    string
			TypeName string `json:"__typename"`
		} `json:"_service"`
	}
	answer := ask[service](t, s, "", `{ _service { sdl again: sdl __typename } }`, nil).Service
	if answer.TypeName != "_Service" || answer.Again != answer.SDL {
		t.Errorf("%+v", answer)
	}
	document, err := parser.ParseSchema(&ast.Source{Input: answer.SDL})
	if err != nil {
		t.Fatal(err)
	}
	for name, directive := range map[string]string{
		"User": "key", "Conversation": "key", "Message": "key", "PageInfo": "shareable",
	} {
		if definition := document.Definitions.ForName(name); definition == nil || definition.Directives.ForName(directive) == nil {
			t.Errorf("%s has no @%s", name, directive)
		}
	}
	if strings.Contains(answer.SDL, "_entities") || strings.Contains(answer.SDL, "ByIDs") {
		t.Error("the schema has what the server adds for itself")
	}
	// The schema is told in this way alone.
	for _, query := range []string{
		`{ __schema { queryType { name } } }`, `{ _service { sdl } __schema { queryType { name } } }`, `{ _service { sdl } __type(name: "User") { name } }`,
	} {
		if r := s.post(t, "", query, nil); len(r.Errors) == 0 {
			t.Errorf("%s: %s", query, r.Raw)
		}
	}
}

func TestIntrospectionHasNothingThatTheGeneratorAdds(t *testing.T) {
	s := start(t, func(cfg *Config) { cfg.Development = true })
	type introspection struct {
		Schema struct {
			Types []struct{ Name string }
		} `json:"__schema"`
	}
	var federation []string
	for _, typ := range ask[introspection](t, s, "", `{ __schema { types { name } } }`, nil).Schema.Types {
		if typ.Name == "Entity" || strings.HasSuffix(typ.Name, "ByIDsInput") {
			t.Errorf("there is a type %s", typ.Name)
		}
		if strings.HasPrefix(typ.Name, "_") && !strings.HasPrefix(typ.Name, "__") {
			federation = append(federation, typ.Name)
		}
	}
	if diff := cmp.Diff([]string{"_Any", "_Entity", "_Service"}, federation); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestEntitiesNeedAToken(t *testing.T) {
	s := federated(t)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	s.send(ada, bob, "Hello")
	for name, query := range map[string]string{
		"alone":              entitiesQuery,
		"beside the service": strings.Replace(entitiesQuery, "{ _entities", "{ _service { sdl } _entities", 1),
	} {
		calls := s.counted(func() {
			r := s.post(t, "", query, reps(rep("User", userID(ada.id))))
			if r.code() != "UNAUTHENTICATED" || r.Status != http.StatusUnauthorized || r.Data != nil {
				t.Errorf("%s: %d %s", name, r.Status, r.Raw)
			}
		})
		if len(calls) > 0 {
			t.Errorf("%s: it came as far as %v", name, calls)
		}
	}
}

// TestEntitiesGiveWhatNodeGives asks for everything as everybody, in both ways.
func TestEntitiesGiveWhatNodeGives(t *testing.T) {
	s := federated(t)
	ada, bob, cyd := s.add(t, "ada"), s.add(t, "bob"), s.add(t, "cyd")
	talk := ids.ID(s.send(ada, bob, "Hello").ConversationId)
	notes := ids.ID(s.send(cyd, cyd, "Milk").ConversationId)
	wanted := []struct{ typeName, id string }{
		{"User", userID(ada.id)},
		{"User", userID(cyd.id)},
		{"User", userID(ids.New())},
		{"Conversation", conversationID(talk)},
		{"Conversation", conversationID(notes)},
		{"Conversation", conversationID(ids.New())},
		{"Message", messageID(talk, 1)},
		{"Message", messageID(talk, 2)},
		{"Message", messageID(notes, 1)},
		{"Message", messageID(ids.New(), 1)},
		{"User", ""},
		{"Message", "garbage"},
		{"Message", messageID(talk, 1) + "\n"},
	}
	given := make([]any, len(wanted))
	for i, entity := range wanted {
		given[i] = rep(entity.typeName, entity.id)
	}
	type node map[string]any
	seen := map[string]int{}
	for _, caller := range []person{ada, bob, cyd} {
		entities := ask[struct {
			Entities []node `json:"_entities"`
		}](t, s, caller.token, entitiesQuery, reps(given...)).Entities
		for i, entity := range wanted {
			query := strings.Replace(entitiesQuery, "query($representations: [_Any!]!) { _entities(representations: $representations)",
				"query($id: ID!) { node(id: $id)", 1)
			want := ask[struct{ Node node }](t, s, caller.token, query, map[string]any{"id": entity.id}).Node
			if diff := cmp.Diff(want, entities[i]); diff != "" {
				t.Errorf("%s as %s sees it, -node +entity:\n%s", entity, caller.name, diff)
			}
			if want != nil {
				seen[caller.name]++
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"ada": 4, "bob": 4, "cyd": 4}, seen); diff != "" {
		t.Errorf("-want +seen:\n%s", diff)
	}
	// The id of one type is nothing of another, whatever the representation says.
	for _, wrong := range []map[string]any{
		rep("User", conversationID(talk)), rep("Conversation", messageID(talk, 1)), rep("Message", userID(ada.id)),
	} {
		if r := s.post(t, ada.token, entitiesQuery, reps(wrong)); string(r.Data) != `{"_entities":[null]}` || len(r.Errors) > 0 {
			t.Errorf("%v: %s", wrong, r.Raw)
		}
	}
}

func TestEntitiesAreReadTogether(t *testing.T) {
	s := federated(t)
	ada := s.add(t, "ada")
	var users, conversations, messages []any
	for i := range 20 {
		peer := s.add(t, fmt.Sprintf("peer-%d", i))
		talk := ids.ID(s.send(peer, ada, "Hello").ConversationId)
		users = append(users, rep("User", userID(peer.id)))
		conversations = append(conversations, rep("Conversation", conversationID(talk)))
		messages = append(messages, rep("Message", messageID(talk, 1)))
	}
	for name, test := range map[string]struct {
		selection string
		reps      []any
		calls     map[string]int
		yield     int
	}{
		"users":      {`... on User { username }`, users, map[string]int{"BatchGetUsers": 1}, 20},
		"twice each": {`... on User { username }`, append(users, users...), map[string]int{"BatchGetUsers": 1}, 40},
		"with strangers": {
			`... on User { username }`, append(users, rep("User", userID(ids.New()))), map[string]int{"BatchGetUsers": 1}, 20,
		},
		"conversations": {
			`... on Conversation { unreadCount with { username } messages(last: 5) { edges { node { username: body sender { username } } } } }`,
			conversations,
			map[string]int{"BatchGetConversations": 1, "BatchListMessages": 1, "BatchGetUsers": 1},
			20,
		},
		"messages": {
			`... on Message { body sender { username } conversation { unreadCount } }`,
			messages,
			map[string]int{"BatchGetMessages": 1, "BatchGetUsers": 1, "BatchGetConversations": 1},
			20,
		},
		"nothing but nonsense": {`... on User { username }`, []any{rep("User", "x"), rep("User", "y")}, map[string]int{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			query := `query($representations: [_Any!]!) { _entities(representations: $representations) { ` + test.selection + ` } }`
			var got []map[string]any
			calls := s.counted(func() {
				got = ask[struct {
					Entities []map[string]any `json:"_entities"`
				}](t, s, ada.token, query, reps(test.reps...)).Entities
			})
			if diff := cmp.Diff(test.calls, calls); diff != "" {
				t.Errorf("calls, -want +got:\n%s", diff)
			}
			yield := 0
			for _, entity := range got {
				if entity != nil {
					yield++
				}
			}
			if yield != test.yield || len(got) != len(test.reps) {
				t.Errorf("%d of %d, want %d of %d", yield, len(got), test.yield, len(test.reps))
			}
		})
	}
}

func TestRepresentationsThatAreRefused(t *testing.T) {
	s := federated(t)
	ada := s.add(t, "ada")
	good := rep("User", userID(ada.id))
	with := func(name string, value any) map[string]any {
		changed := rep("User", userID(ada.id))
		changed[name] = value
		return changed
	}
	crowded := rep("User", userID(ada.id))
	for i := range 20 {
		crowded[fmt.Sprint("field", i)] = i
	}
	many := make([]any, 201)
	for i := range many {
		many[i] = good
	}
	for name, list := range map[string][]any{
		"no object":           {good, "User"},
		"a list":              {good, []any{good}},
		"no type":             {good, map[string]any{"id": userID(ada.id)}},
		"a type that is null": {with("__typename", nil)},
		"a type that is none": {with("__typename", 7)},
		"another type":        {with("__typename", "Query")},
		"an interface":        {with("__typename", "Node")},
		"no id":               {good, map[string]any{"__typename": "User"}},
		"an id that is null":  {with("id", nil)},
		"an id that is none":  {with("id", map[string]any{})},
		"an id of 1 MB":       {with("id", strings.Repeat("A", 1000_000))},
		"an object of 1 MB":   {crowded},
		"too many":            many,
	} {
		t.Run(name, func(t *testing.T) {
			calls := s.counted(func() {
				r := s.post(t, ada.token, entitiesQuery, reps(list...))
				if r.Status != http.StatusBadRequest || r.code() != "BAD_USER_INPUT" || r.Data != nil {
					t.Errorf("%d %.500s", r.Status, r.Raw)
				}
				if e := r.Errors[0]; e.Extensions["argument"] != "representations" || e.Extensions["rule"] == nil ||
					!strings.Contains(e.Message, "representations") || len(e.Message) > 200 {
					t.Errorf("the error does not say what is wrong: %.500s", r.Raw)
				}
			})
			if len(calls) > 0 {
				t.Errorf("it came as far as %v", calls)
			}
		})
	}
	if strings.Contains(s.logs.String(), `"level":"ERROR"`) {
		t.Errorf("what a client sends is logged as our fault:\n%s", s.logs.String())
	}
	if r := s.post(t, ada.token, entitiesQuery, reps(many[:200]...)); len(r.Errors) > 0 {
		t.Errorf("200 representations: %.500s", r.Raw)
	}
	split := `query($a: [_Any!]!, $b: [_Any!]!) { a: _entities(representations: $a) { __typename } b: _entities(representations: $b) { __typename } }`
	if r := s.post(t, ada.token, split, map[string]any{"a": many[:101], "b": many[:100]}); r.code() != "BAD_USER_INPUT" {
		t.Errorf("201 in two fields: %.500s", r.Raw)
	}
	literal := fmt.Sprintf(`{ _entities(representations: {__typename: "User", id: %q}) { ... on User { username } } }`, userID(ada.id))
	if r := s.post(t, ada.token, literal, nil); string(r.Data) != `{"_entities":[{"username":"ada"}]}` {
		t.Errorf("a literal that is no list: %s", r.Raw)
	}
	if r := s.post(t, ada.token, `{ _entities(representations: [{__typename: "User"}]) { __typename } }`, nil); r.code() != "BAD_USER_INPUT" {
		t.Errorf("a literal without id: %s", r.Raw)
	}
}

func TestEachEntityCountsInTheComplexity(t *testing.T) {
	s := federated(t)
	ada := s.add(t, "ada")
	list := make([]any, 100)
	for i := range list {
		list[i] = rep("Conversation", conversationID(ids.New()))
	}
	query := `query($representations: [_Any!]!) { _entities(representations: $representations) {
		... on Conversation { messages(last: 100) { edges { node { body seq } } } }
	} }`
	calls := s.counted(func() {
		if r := s.post(t, ada.token, query, reps(list...)); len(r.Errors) == 0 || r.Data != nil {
			t.Errorf("the answer could have 40,000 fields: %.500s", r.Raw)
		}
	})
	if len(calls) > 0 {
		t.Errorf("it came as far as %v", calls)
	}
	ask[any](t, s, ada.token, query, reps(list[:20]...))
}

func TestEntitiesOfAServiceThatFails(t *testing.T) {
	s := federated(t)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	talk := ids.ID(s.send(ada, bob, "Hello").ConversationId)
	s.fail("BatchGetMessages", errs.New(errs.Unavailable, "messages is away"))
	r := s.post(t, ada.token, entitiesQuery, reps(rep("User", userID(bob.id)), rep("Message", messageID(talk, 1))))
	want := fmt.Sprintf(`{"_entities":[{"__typename":"User","id":%q,"username":"bob"},null]}`, userID(bob.id))
	if string(r.Data) != want || r.code() != "UNAVAILABLE" || len(r.Errors) != 1 {
		t.Errorf("%s", r.Raw)
	}
}
