package graph

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
)

const graphQLJSON = "application/graphql-response+json"

// operations has each root field that needs a token.
func operations() map[string]string {
	user, conversation := userID(ids.New()), conversationID(ids.New())
	return map[string]string{
		"me":               `{ me { id } }`,
		"cursor":           `{ cursor }`,
		"user":             fmt.Sprintf(`{ user(id: %q) { id } }`, user),
		"users":            `{ users { edges { cursor } } }`,
		"node":             fmt.Sprintf(`{ node(id: %q) { id } }`, user),
		"conversations":    `{ conversations { edges { cursor } } }`,
		"conversation":     fmt.Sprintf(`{ conversation(id: %q) { id } }`, conversation),
		"conversationWith": fmt.Sprintf(`{ conversationWith(userId: %q) { id } }`, user),
		"message":          fmt.Sprintf(`{ message(id: %q) { id } }`, messageID(ids.New(), 1)),
		"sendMessage": fmt.Sprintf(`mutation { sendMessage(input: {recipientId: %q, body: "x", clientId: %q}) { userErrors { code } } }`,
			user, ids.New()),
		"markRead":        fmt.Sprintf(`mutation { markRead(input: {conversationId: %q, seq: 1}) { userErrors { code } } }`, conversation),
		"signOut":         `mutation { signOut { userErrors { code } } }`,
		"newMessage":      `subscription { newMessage { cursor } }`,
		"under an alias":  `{ __typename mine: me { id } }`,
		"in a fragment":   `{ ... on Query { ...f } } fragment f on Query { me { id } }`,
		"beside a public": `mutation { signIn(input: {username: "a", password: "b"}) { userErrors { code } } markRead(input: {conversationId: "", seq: 1}) { userErrors { code } } }`,
	}
}

// forged returns tokens that must not be accepted.
func forged(t *testing.T, s *server, who person) map[string]string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := identity.NewSigner([]ed25519.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	unknown, _, err := stranger.Sign(who.id, ids.New(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(who.token, ".")
	signedOut := s.token(t, who.id, time.Hour)
	s.revoke(t, signedOut)
	s.awaitRefusal(t, signedOut)
	return map[string]string{
		"signed out":    signedOut,
		"another's key": unknown,
		"expired":       s.token(t, who.id, -time.Minute),
		"unsigned":      "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"changed":       parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"garbage":       "garbage",
	}
}

func TestEveryOperationNeedsAToken(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	tokens := forged(t, s, ada)
	tokens["none"] = ""
	for name, query := range operations() {
		for kind, token := range tokens {
			if kind == "another's key" && name != "me" {
				// The verifier looks for a key that it does not know once a second at most, and lets each wait.
				continue
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				var r response
				calls := s.counted(func() { r = s.post(t, token, query, nil) })
				if r.code() != "UNAUTHENTICATED" || r.Data != nil || r.Status != http.StatusUnauthorized {
					t.Errorf("%d %s", r.Status, r.Raw)
				}
				if r.Header.Get("WWW-Authenticate") != "Bearer" {
					t.Error("WWW-Authenticate is missing")
				}
				if len(calls) > 0 {
					t.Errorf("it came as far as %v", calls)
				}
			})
		}
	}
}

func TestOnlyTheStatusDependsOnTheMediaType(t *testing.T) {
	s := start(t, nil)
	header := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	for body, want := range map[string]struct {
		code    string
		statusG int
		statusJ int
	}{
		`{"query":"{ me { id } }"}`:                            {"UNAUTHENTICATED", 401, 200},
		`{"query":"{ nothing }"}`:                              {"GRAPHQL_VALIDATION_FAILED", 400, 200},
		`{"query":"{"}`:                                        {"GRAPHQL_PARSE_FAILED", 400, 200},
		`{"query":"query($id: ID!) { user(id: $id) { id } }"}`: {"BAD_USER_INPUT", 400, 200},
		`{"query":"{ __typename }","operationName":"x"}`:       {"GRAPHQL_VALIDATION_FAILED", 400, 200},
		`{"query":"{ __typename }"}`:                           {"", 200, 200},
		`{"query":7}`:                                          {"BAD_USER_INPUT", 400, 400},
		`{}`:                                                   {"BAD_USER_INPUT", 400, 400},
		`[]`:                                                   {"BAD_USER_INPUT", 400, 400},
		`{"query":"{ __typename }"} x`:                         {"BAD_USER_INPUT", 400, 400},
		``:                                                     {"BAD_USER_INPUT", 400, 400},
	} {
		t.Run(body, func(t *testing.T) {
			header.Set("Accept", "application/json")
			r := s.do(t, http.MethodPost, "/graphql", header.Clone(), body)
			if r.Status != want.statusJ || r.code() != want.code || r.Header.Get("Content-Type") != "application/json; charset=utf-8" {
				t.Errorf("as JSON: %d %s %s", r.Status, r.Header.Get("Content-Type"), r.Raw)
			}
			header.Set("Accept", graphQLJSON)
			r = s.do(t, http.MethodPost, "/graphql", header.Clone(), body)
			if r.Status != want.statusG || r.code() != want.code || r.Header.Get("Content-Type") != graphQLJSON+"; charset=utf-8" {
				t.Errorf("as GraphQL: %d %s %s", r.Status, r.Header.Get("Content-Type"), r.Raw)
			}
			if want.code != "" {
				if id, _ := r.Errors[0].Extensions["traceId"].(string); len(id) != 32 {
					t.Errorf("no traceId: %s", r.Raw)
				}
			}
		})
	}
}

func TestTextThatIsNotUnicodeIsRefused(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	header := http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + ada.token}}
	mutation := `mutation($b: String!) { sendMessage(input: {recipientId: \"` + userID(ada.id) + `\", body: $b, clientId: \"` +
		ids.New().String() + `\"}) { message { body } userErrors { code } } }`
	literal := strings.ReplaceAll(mutation, "$b: String!", "$c: Int")
	for name, test := range map[string]struct {
		body   string
		refuse bool
	}{
		"invalid byte in a variable":     {`{"query":"` + mutation + `","variables":{"b":"a` + "\xff" + `"}}`, true},
		"half a sequence":                {`{"query":"` + mutation + `","variables":{"b":"` + "\xe2\x82" + `"}}`, true},
		"encoded surrogate":              {`{"query":"` + mutation + `","variables":{"b":"` + "\xed\xa0\x80" + `"}}`, true},
		"overlong":                       {`{"query":"` + mutation + `","variables":{"b":"` + "\xc0\xaf" + `"}}`, true},
		"high surrogate alone":           {`{"query":"` + mutation + `","variables":{"b":"\ud83d"}}`, true},
		"high surrogate and a letter":    {`{"query":"` + mutation + `","variables":{"b":"\ud83dx"}}`, true},
		"low surrogate alone":            {`{"query":"` + mutation + `","variables":{"b":"\ude00"}}`, true},
		"surrogates in the wrong order":  {`{"query":"` + mutation + `","variables":{"b":"\ude00\ud83d"}}`, true},
		"in a key":                       {`{"query":"` + mutation + `","variables":{"b":"x","\ud83d":1}}`, true},
		"in a literal":                   {`{"query":"` + strings.ReplaceAll(literal, "body: $b", `body: \"\\ud83d\"`) + `"}`, true},
		"a pair":                         {`{"query":"` + mutation + `","variables":{"b":"\ud83d\ude00"}}`, false},
		"an escaped backslash before it": {`{"query":"` + mutation + `","variables":{"b":"\\ud83d"}}`, false},
		"as it is":                       {`{"query":"` + mutation + `","variables":{"b":"😀 e` + "\u0301" + ` \u200f"}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.counted(func() {}))
			var r response
			calls := s.counted(func() { r = s.do(t, http.MethodPost, "/graphql", header.Clone(), test.body) })
			if test.refuse && (r.Status != http.StatusBadRequest || r.code() != "BAD_USER_INPUT" || len(calls) != before) {
				t.Errorf("%d %s after %v", r.Status, r.Raw, calls)
			}
			if !test.refuse && r.code() == "BAD_USER_INPUT" {
				t.Errorf("%d %s", r.Status, r.Raw)
			}
		})
	}
	r := s.do(t, http.MethodGet, "/graphql?query="+url.QueryEscape("{ __typename }\xff"), http.Header{}, "")
	if r.Status != http.StatusBadRequest || r.code() != "BAD_USER_INPUT" {
		t.Errorf("GET: %d %s", r.Status, r.Raw)
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	s := start(t, nil)
	jsonType := http.Header{"Content-Type": {"application/json"}}
	for name, test := range map[string]struct {
		method, path string
		header       http.Header
		body         string
		status       int
		allow        string
	}{
		"too large":          {"POST", "/graphql", jsonType, `{"query":"` + strings.Repeat(" ", 1<<20) + `"}`, 413, ""},
		"just not":           {"POST", "/graphql", jsonType, `{"query":"{ __typename }` + strings.Repeat(" ", 1<<20-26) + `"}`, 200, ""},
		"no content type":    {"POST", "/graphql", http.Header{}, `{"query":"{ __typename }"}`, 415, ""},
		"a form":             {"POST", "/graphql", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, `query={__typename}`, 415, ""},
		"another charset":    {"POST", "/graphql", http.Header{"Content-Type": {"application/json; charset=latin1"}}, `{}`, 415, ""},
		"the charset":        {"POST", "/graphql", http.Header{"Content-Type": {"application/json; charset=UTF-8"}}, `{"query":"{ __typename }"}`, 200, ""},
		"another method":     {"PATCH", "/graphql", jsonType, `{"query":"{ __typename }"}`, 405, "GET, HEAD, POST"},
		"nothing it takes":   {"POST", "/graphql", http.Header{"Content-Type": {"application/json"}, "Accept": {"text/html"}}, `{"query":"{ __typename }"}`, 406, ""},
		"GET":                {"GET", "/graphql?query=%7B__typename%7D", http.Header{}, "", 200, ""},
		"GET with variables": {"GET", "/graphql?query=query(%24a:Boolean!)%7B__typename%20%40include(if:%24a)%7D&variables=%7B%22a%22:true%7D", http.Header{}, "", 200, ""},
		"GET without query":  {"GET", "/graphql", http.Header{}, "", 400, ""},
		"GET broken":         {"GET", "/graphql?query=%zz", http.Header{}, "", 400, ""},
		"GET bad variables":  {"GET", "/graphql?query=%7B__typename%7D&variables=7", http.Header{}, "", 400, ""},
		"GET two queries":    {"GET", "/graphql?query=%7B__typename%7D&query=%7Bme%7Bid%7D%7D", http.Header{}, "", 400, ""},
		"a member misspelt":  {"POST", "/graphql", jsonType, `{"Query":"{ __typename }"}`, 400, ""},
		"members too many":   {"POST", "/graphql", jsonType, `{"query":"{ __typename }","Query":7,"id":1}`, 200, ""},
		"a batch":            {"POST", "/graphql", jsonType, `[{"query":"{ __typename }"}]`, 400, ""},
		"GET a mutation": {
			"GET", "/graphql?query=" + url.QueryEscape(`mutation { signIn(input: {username: "a", password: "b"}) { userErrors { code } } }`),
			http.Header{},
			"", 405, "POST",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.do(t, test.method, test.path, test.header.Clone(), test.body)
			if r.Status != test.status || r.Header.Get("Allow") != test.allow {
				t.Errorf("%d (Allow: %s) %.300s", r.Status, r.Header.Get("Allow"), r.Raw)
			}
			if (r.Status == 200) != (len(r.Errors) == 0) {
				t.Errorf("got %.300s", r.Raw)
			}
		})
	}
	if calls := s.counted(func() {
		s.do(t, "GET", "/graphql?query="+url.QueryEscape(`mutation { signIn(input: {username: "a", password: "b"}) { userErrors { code } } }`), http.Header{}, "")
	}); len(calls) > 0 {
		t.Errorf("GET ran a mutation: %v", calls)
	}
}

func TestHeadIsGetWithoutTheAnswer(t *testing.T) {
	s := start(t, nil)
	for query, want := range map[string]int{
		"{ __typename }":          http.StatusOK,
		"{ nothing }":             http.StatusBadRequest,
		"mutation { __typename }": http.StatusMethodNotAllowed,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+s.addr+"/graphql?query="+url.QueryEscape(query), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if answer.StatusCode != want || answer.ContentLength <= 0 {
			t.Errorf("%s: %d, %d bytes", query, answer.StatusCode, answer.ContentLength)
		}
	}
}

// A client that names application/json alone knows an answer of ours by the status 200.
func TestTheStatusOfEachFormOfAnswer(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	s.fail("GetConversationWith", errs.New(errs.Unavailable, "later"))
	token := "Bearer " + ada.token
	partial := `{"query":"{ me { id } conversationWith(userId: \"` + userID(ada.id) + `\") { id } }"}`
	for name, test := range map[string]struct {
		body, token                 string
		graphQL, json, any, nothing int
	}{
		"data":          {`{"query":"{ me { id } }"}`, token, 200, 200, 200, 200},
		"some data":     {partial, token, 294, 200, 200, 200},
		"no token":      {`{"query":"{ me { id } }"}`, "", 401, 200, 401, 401},
		"a false token": {`{"query":"{ me { id } }"}`, "Bearer false", 401, 401, 401, 401},
		"invalid":       {`{"query":"{ nothing }"}`, "", 400, 200, 400, 400},
		"malformed":     {`{"query":`, "", 400, 400, 400, 400},
		"subscription":  {`{"query":"subscription { newMessage { cursor } }"}`, token, 400, 200, 400, 400},
	} {
		for accept, want := range map[string]int{
			graphQLJSON: test.graphQL, "application/json": test.json, "*/*": test.any, "": test.nothing,
		} {
			header := http.Header{"Content-Type": {"application/json"}, "Accept": {accept}}
			if test.token != "" {
				header.Set("Authorization", test.token)
			}
			r := s.do(t, http.MethodPost, "/graphql", header, test.body)
			media := "application/json"
			if accept == graphQLJSON {
				media = accept
			}
			if r.Status != want || r.Header.Get("Content-Type") != media+"; charset=utf-8" {
				t.Errorf("%s, Accept %q: %d %s, want %d: %s", name, accept, r.Status, r.Header.Get("Content-Type"), want, r.Raw)
			}
			if vary := strings.Join(r.Header.Values("Vary"), ", "); !strings.Contains(vary, "Accept") || !strings.Contains(vary, "Origin") {
				t.Errorf("%s: Vary is %s", name, vary)
			}
		}
	}
}

func TestSubscriptionsDoNotTravelOverPlainHTTP(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	r := s.post(t, ada.token, `subscription { newMessage { cursor } }`, nil)
	if r.Status != http.StatusBadRequest || r.code() != "BAD_USER_INPUT" {
		t.Errorf("%d %s", r.Status, r.Raw)
	}
}

func TestPlaygroundAndIntrospectionExistOnlyInDevelopment(t *testing.T) {
	for _, development := range []bool{false, true} {
		t.Run(fmt.Sprint(development), func(t *testing.T) {
			s := start(t, func(c *Config) { c.Development = development })
			for _, path := range []string{"/", "/playground/playground.js", "/playground/style.css", "/playground/icon.svg"} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.addr+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = answer.Body.Close()
				http.DefaultClient.CloseIdleConnections()
				if (answer.StatusCode == http.StatusOK) != development {
					t.Errorf("%s: %d", path, answer.StatusCode)
				}
				policy := answer.Header.Get("Content-Security-Policy")
				if development && (!strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe")) {
					t.Errorf("%s: the policy is %q", path, policy)
				}
			}
			r := s.post(t, "", `{ __schema { queryType { name } } }`, nil)
			if (len(r.Errors) == 0) != development || !development && r.code() != "FORBIDDEN" {
				t.Errorf("introspection: %s", r.Raw)
			}
			r = s.post(t, "", `{ mee }`, nil)
			if strings.Contains(r.Raw, "Did you mean") != development {
				t.Errorf("suggestions: %s", r.Raw)
			}
		})
	}
}

func TestNothingOfAMessageReachesTheLog(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	canary := "canary-in-the-text"
	sendMessage(t, s, ada.token, map[string]any{"recipientId": userID(ada.id), "body": canary, "clientId": ids.New().String()})
	signIn(t, s, "canary-in-the-name@example.com", "canary-in-the-password")
	s.do(t, http.MethodPost, "/graphql", http.Header{"Content-Type": {"application/json"}}, `{"canary-in-the-body`)
	s.fail("SendMessage", fmt.Errorf("no"))
	body, err := json.Marshal(map[string]any{"query": `mutation { sendMessage(input: {recipientId: "` + userID(ada.id) +
		`", body: "canary-in-the-literal", clientId: "` + ids.New().String() + `"}) { userErrors { code } } }`})
	if err != nil {
		t.Fatal(err)
	}
	s.do(t, http.MethodPost, "/graphql", http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + ada.token}}, string(body))
	logs := s.logs.String()
	if !strings.Contains(logs, `"request"`) || strings.Contains(logs, "canary") || strings.Contains(logs, ada.token) {
		t.Errorf("the log has what it must not: %s", logs)
	}
}
