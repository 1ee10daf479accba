package graph

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"chatapp.dev/internal/platform/ids"
)

// rule is the rule that the first error names.
func (r response) rule() string {
	if len(r.Errors) == 0 {
		return ""
	}
	rule, _ := r.Errors[0].Extensions["rule"].(string)
	return rule
}

// aliased repeats a field under that many aliases.
func aliased(n int, field string) string {
	var fields strings.Builder
	for i := range n {
		fmt.Fprintf(&fields, "a%d: %s ", i, field)
	}
	return fields.String()
}

func TestLimits(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	deep := strings.Repeat("conversation { lastMessage { ", 15) + "id" + strings.Repeat(" } }", 15)
	var bomb strings.Builder
	for i := range 15 {
		fmt.Fprintf(&bomb, "fragment f%d on Query { %s}\n", i, strings.Repeat(fmt.Sprintf("...f%d ", i+1), 10))
	}
	signIn := `signIn(input: {username: "ada", password: "guess"}) { userErrors { code } }`
	for name, test := range map[string]struct{ query, code, rule, message string }{
		"tokens": {
			"{ " + strings.Repeat("me { id } ", 500) + "}", "GRAPHQL_PARSE_FAILED", "", "exceeded token limit of 2000",
		},
		"depth": {
			`query($id: ID!) { message(id: $id) { ` + deep + ` } }`, "BAD_USER_INPUT", "TOO_DEEP", "fields may be nested at most 20 deep",
		},
		"fields": {
			"{ " + strings.Repeat("...f ", 30) + "} fragment f on Query { me { " + strings.Repeat("id ", 50) + "} }",
			"BAD_USER_INPUT", "TOO_MANY_FIELDS", "an operation may have at most 1000 fields",
		},
		"fields of fragments in fragments": {
			"{ ...f0 }\n" + bomb.String() + "fragment f15 on Query { __typename }",
			"BAD_USER_INPUT", "TOO_MANY_FIELDS", "an operation may have at most 1000 fields",
		},
		"aliases": {
			"{ me { " + aliased(51, "id") + "} }", "BAD_USER_INPUT", "TOO_MANY_ALIASES", "at most 50 fields of an operation may have an alias",
		},
		"aliases of a fragment": {
			"{ ...f b: me { ...g } c: me { ...g } } fragment f on Query { d: me { ...g } } fragment g on User { " + aliased(17, "id") + "}",
			"BAD_USER_INPUT", "TOO_MANY_ALIASES", "at most 50 fields of an operation may have an alias",
		},
		"as many aliases as may be": {"{ me { " + aliased(50, "id") + "} }", "", "", ""},
		"root fields": {
			"{ " + aliased(21, "me { id }") + "}", "BAD_USER_INPUT", "TOO_MANY_ROOT_FIELDS",
			"a query may have at most 20 fields at its root, but has 21",
		},
		"as many root fields as may be": {"{ " + aliased(20, "me { id }") + "}", "", "", ""},
		"mutations": {
			"mutation { " + aliased(11, signIn) + "}", "BAD_USER_INPUT", "TOO_MANY_ROOT_FIELDS",
			"a mutation may have at most 10 fields at its root, but has 11",
		},
		"complexity": {
			`{ conversations(first: 100) { edges { node { messages(first: 100) { edges { node { id body } } } } } } }`,
			"BAD_USER_INPUT", "TOO_COMPLEX", "the answer to an operation may have at most 20000 fields, and this one's could have 40301",
		},
		"defer": {`{ ... @defer { me { id } } }`, "BAD_USER_INPUT", "DEFER_NOT_SUPPORTED", "@defer is not supported"},
		"a whole screen": {
			`{ conversations(first: 100) { edges { node { id with { id username displayName } messages(first: 15) { edges { node { id seq body sender { id } } } } } } } }`,
			"", "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			calls := s.counted(func() {
				r := s.post(t, ada.token, test.query, map[string]any{"id": messageID(ids.New(), 1)})
				if r.code() != test.code || r.rule() != test.rule || (test.code != "" && r.Errors[0].Message != test.message) {
					t.Errorf("got %.300s", r.Raw)
				}
			})
			if test.code != "" && len(calls) > 0 {
				t.Errorf("it came as far as %v", calls)
			}
		})
	}
}

func TestLimitsAreSettings(t *testing.T) {
	for name, test := range map[string]struct {
		change        func(*Config)
		within, above string
		message       string
	}{
		"tokens": {
			func(c *Config) { c.Limit.Tokens = 3 }, "{ __typename }", "{ __typename __typename }", "exceeded token limit of 3",
		},
		"depth":     {func(c *Config) { c.Limit.Depth = 1 }, "{ me: __typename }", "{ me { id } }", "at most 1 deep"},
		"fields":    {func(c *Config) { c.Limit.Fields = 1 }, "{ __typename }", "{ __typename __typename }", "at most 1 fields"},
		"aliases":   {func(c *Config) { c.Limit.Aliases = 0 }, "{ __typename }", "{ a: __typename }", "at most 0 fields"},
		"root":      {func(c *Config) { c.Limit.RootFields = 1 }, "{ __typename __typename }", "{ __typename a: __typename }", "at most 1 fields"},
		"mutations": {func(c *Config) { c.Limit.Mutations = 1 }, "mutation { __typename }", "mutation { __typename a: __typename }", "at most 1 fields"},
		"complexity": {
			func(c *Config) { c.Limit.Complexity = 2 }, "{ __typename }", "{ users { edges { node { id } } } }", "at most 2 fields",
		},
		"body": {
			func(c *Config) { c.Limit.BodyBytes = 1024 }, "{ __typename }" + strings.Repeat(" ", 990), "{ __typename }" + strings.Repeat(" ", 1010),
			"at most 1024 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, test.change)
			jsonType := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + s.add(t, "ada").token}}
			if r := s.do(t, http.MethodPost, "/graphql", jsonType.Clone(), `{"query":"`+test.within+`"}`); len(r.Errors) > 0 {
				t.Errorf("within the limit: %s", r.Raw)
			}
			r := s.do(t, http.MethodPost, "/graphql", jsonType.Clone(), `{"query":"`+test.above+`"}`)
			if len(r.Errors) == 0 || !strings.Contains(r.Errors[0].Message, test.message) {
				t.Errorf("above the limit: %s", r.Raw)
			}
		})
	}
}
