package graph

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// byHash are the extensions with which Apollo's clients name a document.
func byHash(hash string) map[string]any {
	return map[string]any{"persistedQuery": map[string]any{"version": 1, "sha256Hash": hash}}
}

// postBody sends any members as the body of a request.
func (s *server) postBody(t *testing.T, token string, members map[string]any) response {
	t.Helper()
	header := http.Header{"Content-Type": {"application/json"}, "Accept": {graphQLJSON}}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return s.do(t, http.MethodPost, "/graphql", header, string(encode(t, members)))
}

func TestAutomaticPersistedQueries(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	query := "{ me { username } }"
	hashed := map[string]any{"extensions": byHash(sha(query))}
	if r := s.postBody(t, ada.token, hashed); r.code() != "PERSISTED_QUERY_NOT_FOUND" || r.Status != http.StatusNotFound ||
		r.Errors[0].Message != "PersistedQueryNotFound" {
		t.Errorf("before: %d %s", r.Status, r.Raw)
	}
	taught := map[string]any{"query": query, "extensions": byHash(sha(query))}
	// Somebody who may not execute it teaches nothing.
	if r := s.postBody(t, "", taught); r.code() != "UNAUTHENTICATED" {
		t.Errorf("without a token: %s", r.Raw)
	}
	if r := s.postBody(t, ada.token, hashed); r.code() != "PERSISTED_QUERY_NOT_FOUND" {
		t.Errorf("taught by a stranger: %s", r.Raw)
	}
	if r := s.postBody(t, ada.token, taught); len(r.Errors) > 0 {
		t.Errorf("along with the text: %s", r.Raw)
	}
	if r := s.postBody(t, ada.token, hashed); len(r.Errors) > 0 || !strings.Contains(r.Raw, `"username":"ada"`) {
		t.Errorf("after: %s", r.Raw)
	}
	if r := s.postBody(t, "", hashed); r.code() != "UNAUTHENTICATED" || r.Status != http.StatusUnauthorized {
		t.Errorf("after, without a token: %d %s", r.Status, r.Raw)
	}
	if r := s.postBody(t, ada.token, map[string]any{"documentId": "sha256:" + sha(query)}); len(r.Errors) > 0 {
		t.Errorf("by documentId: %s", r.Raw)
	}
	for _, parameters := range []string{
		"extensions=" + url.QueryEscape(string(encode(t, byHash(sha(query))))),
		"documentId=sha256:" + sha(query),
	} {
		r := s.do(t, http.MethodGet, "/graphql?"+parameters, http.Header{"Authorization": {"Bearer " + ada.token}}, "")
		if len(r.Errors) > 0 || !strings.Contains(r.Raw, `"username":"ada"`) {
			t.Errorf("by GET with %s: %s", parameters, r.Raw)
		}
	}
	socket := s.connect(t, ada.token)
	socket.send(wsMessage{ID: "1", Type: "subscribe", Payload: encode(t, hashed)})
	if m := socket.receive(); m.Type != "next" || !strings.Contains(string(m.Payload), `"username":"ada"`) {
		t.Errorf("on a socket: %s %s", m.Type, m.Payload)
	}
}

func TestPersistedQueriesThatAreRefused(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	query := "{ me { id } }"
	mutation := `mutation { signIn(input: {username: "ada", password: "x"}) { userErrors { code } } }`
	if r := s.postBody(t, "", map[string]any{"query": mutation, "extensions": byHash(sha(mutation))}); len(r.Errors) > 0 {
		t.Fatal(r.Raw)
	}
	if r := s.do(t, http.MethodGet, "/graphql?documentId=sha256:"+sha(mutation), http.Header{}, ""); r.Status != http.StatusMethodNotAllowed {
		t.Errorf("a mutation by GET: %d %s", r.Status, r.Raw)
	}
	for name, test := range map[string]struct {
		members map[string]any
		code    string
	}{
		"another's hash":    {map[string]any{"query": query, "extensions": byHash(sha(mutation))}, "BAD_USER_INPUT"},
		"another's id":      {map[string]any{"query": query, "documentId": "sha256:" + sha(mutation)}, "BAD_USER_INPUT"},
		"no hash":           {map[string]any{"extensions": byHash("me")}, "BAD_USER_INPUT"},
		"capitals":          {map[string]any{"extensions": byHash(strings.ToUpper(sha(query)))}, "BAD_USER_INPUT"},
		"another version":   {map[string]any{"extensions": map[string]any{"persistedQuery": map[string]any{"version": 2, "sha256Hash": sha(query)}}}, "BAD_USER_INPUT"},
		"no version":        {map[string]any{"extensions": map[string]any{"persistedQuery": map[string]any{"sha256Hash": sha(query)}}}, "BAD_USER_INPUT"},
		"no object":         {map[string]any{"extensions": map[string]any{"persistedQuery": sha(query)}}, "BAD_USER_INPUT"},
		"both names":        {map[string]any{"documentId": "sha256:" + sha(mutation), "extensions": byHash(sha(mutation))}, "BAD_USER_INPUT"},
		"id that is none":   {map[string]any{"documentId": "sha256:me"}, "BAD_USER_INPUT"},
		"id of another way": {map[string]any{"documentId": "md5-or-whatever"}, "PERSISTED_QUERY_NOT_FOUND"},
		"id of no text":     {map[string]any{"documentId": 7}, "BAD_USER_INPUT"},
	} {
		t.Run(name, func(t *testing.T) {
			if r := s.postBody(t, ada.token, test.members); r.code() != test.code || r.Status < 400 || r.Status > 499 {
				t.Errorf("%d %s", r.Status, r.Raw)
			}
		})
	}
	// What is not valid, or beyond the limits, is not kept.
	for _, bad := range []string{"{ nothing }", "{ me { " + aliased(51, "id") + "} }"} {
		s.postBody(t, ada.token, map[string]any{"query": bad, "extensions": byHash(sha(bad))})
		if r := s.postBody(t, ada.token, map[string]any{"extensions": byHash(sha(bad))}); r.code() != "PERSISTED_QUERY_NOT_FOUND" {
			t.Errorf("%.20s is kept: %s", bad, r.Raw)
		}
	}
}

func TestPersistedQueriesThatAreOff(t *testing.T) {
	s := start(t, func(c *Config) { c.Persisted.Entries = 0 })
	for _, members := range []map[string]any{
		{"extensions": byHash(sha("{ __typename }"))},
		{"query": "{ __typename }", "extensions": byHash(sha("{ __typename }"))},
		{"documentId": "sha256:" + sha("{ __typename }")},
	} {
		r := s.postBody(t, "", members)
		if r.code() != "PERSISTED_QUERY_NOT_SUPPORTED" || r.Errors[0].Message != "PersistedQueryNotSupported" || r.Status != http.StatusBadRequest {
			t.Errorf("%v: %d %s", members, r.Status, r.Raw)
		}
	}
	if r := s.postBody(t, "", map[string]any{"query": "{ __typename }"}); len(r.Errors) > 0 {
		t.Errorf("the text alone: %s", r.Raw)
	}
}

func TestOnlyTrustedDocumentsAreExecuted(t *testing.T) {
	for _, file := range []string{"testdata/persisted-documents.json", "testdata/persisted-query-manifest.json"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { c.Persisted.TrustedDocuments = file })
			ada := s.add(t, "ada")
			me := trustedText(t, "query Me")
			for name, members := range map[string]map[string]any{
				"the text":            {"query": me},
				"the text and hash":   {"query": me, "extensions": byHash(sha(me))},
				"the hash":            {"extensions": byHash(sha(me))},
				"the documentId":      {"documentId": "sha256:" + sha(me)},
				"an extension's id":   {"extensions": map[string]any{"documentId": sha(me)}},
				"the hash and a name": {"extensions": byHash(sha(me)), "operationName": "Me"},
			} {
				if r := s.postBody(t, ada.token, members); len(r.Errors) > 0 || !strings.Contains(r.Raw, `"username":"ada"`) {
					t.Errorf("%s: %s", name, r.Raw)
				}
			}
			other := "{ __typename }"
			for name, test := range map[string]struct {
				members map[string]any
				code    string
			}{
				"another text":               {map[string]any{"query": other}, "FORBIDDEN"},
				"a text with a space more":   {map[string]any{"query": me + " "}, "FORBIDDEN"},
				"another text and its hash":  {map[string]any{"query": other, "extensions": byHash(sha(other))}, "FORBIDDEN"},
				"another text under a hash":  {map[string]any{"query": other, "extensions": byHash(sha(me))}, "FORBIDDEN"},
				"a text under another hash":  {map[string]any{"query": me, "extensions": byHash(sha(trustedText(t, "mutation")))}, "BAD_USER_INPUT"},
				"another hash":               {map[string]any{"extensions": byHash(sha(other))}, "PERSISTED_QUERY_NOT_FOUND"},
				"another documentId":         {map[string]any{"documentId": "other"}, "PERSISTED_QUERY_NOT_FOUND"},
				"no document that is parsed": {map[string]any{"query": "{"}, "FORBIDDEN"},
			} {
				r := s.postBody(t, ada.token, test.members)
				if r.code() != test.code || (test.code == "FORBIDDEN") != (r.rule() == "TRUSTED_DOCUMENTS") || r.Status < 400 || r.Status > 499 {
					t.Errorf("%s: %d %s", name, r.Status, r.Raw)
				}
			}
			if r := s.do(t, http.MethodGet, "/graphql?variables=%7B%22input%22:%7B%22username%22:%22a%22,%22password%22:%22b%22%7D%7D&documentId=sha256:"+sha(trustedText(t, "mutation")), http.Header{}, ""); r.Status != http.StatusMethodNotAllowed {
				t.Errorf("a mutation by GET: %d %s", r.Status, r.Raw)
			}
			socket := s.connect(t, ada.token)
			socket.send(wsMessage{ID: "1", Type: "subscribe", Payload: encode(t, map[string]any{"query": other})})
			if m := socket.receive(); m.Type != "error" || !strings.Contains(string(m.Payload), `"FORBIDDEN"`) {
				t.Errorf("another text on a socket: %s %s", m.Type, m.Payload)
			}
			socket = s.connect(t, ada.token)
			socket.send(wsMessage{ID: "1", Type: "subscribe", Payload: encode(t, map[string]any{"extensions": byHash(sha(me))})})
			if m := socket.receive(); m.Type != "next" || !strings.Contains(string(m.Payload), `"username":"ada"`) {
				t.Errorf("the hash on a socket: %s %s", m.Type, m.Payload)
			}
		})
	}
}

// trustedText returns the document of testdata that begins so.
func trustedText(t *testing.T, prefix string) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/persisted-documents.json")
	if err != nil {
		t.Fatal(err)
	}
	var documents map[string]string
	if err := json.Unmarshal(raw, &documents); err != nil {
		t.Fatal(err)
	}
	for _, text := range documents {
		if strings.HasPrefix(text, prefix) {
			return text
		}
	}
	t.Fatalf("no document begins with %q", prefix)
	return ""
}
