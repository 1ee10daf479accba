package graph

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// streamed is an HTTP response that goes on.
type streamed struct {
	t *testing.T
	*http.Response
	lines *bufio.Scanner
}

// stream asks for a response that goes on.
func (s *server) stream(t *testing.T, method, path, token string, header http.Header, body any) *streamed {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, bytes.NewReader(encode(t, body)))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return &streamed{t: t, Response: answer, lines: bufio.NewScanner(answer.Body)}
}

// until reads lines until one has a text, and returns that; or to the end, for the empty text.
func (s *streamed) until(text string) string {
	s.t.Helper()
	var read []string
	for s.lines.Scan() {
		line := s.lines.Text()
		if text != "" && strings.Contains(line, text) {
			return line
		}
		read = append(read, line)
	}
	if text != "" {
		s.t.Fatalf("the response ended (%v) without %q: %q", s.lines.Err(), text, read)
	}
	return strings.Join(read, "\n")
}

// subscription asks for new messages as an operation's body does.
func subscription(after string, extensions map[string]any) map[string]any {
	variables := map[string]any{}
	if after != "" {
		variables["after"] = after
	}
	return map[string]any{"query": newMessage, "variables": variables, "extensions": extensions}
}

const partsAccept = `multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json`

func TestSubscriptionsTravelOverHTTPResponsesThatGoOn(t *testing.T) {
	for name, test := range map[string]struct{ accept, next, failed string }{
		"events": {"text/event-stream", `data: {"data":{"newMessage":{"cursor":`, `data: {"errors":[{`},
		"parts":  {partsAccept, `{"payload":{"data":{"newMessage":{"cursor":`, `{"payload":null,"errors":[{`},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			ada, bob := s.add(t, "ada"), s.add(t, "bob")
			after := cursorOf(bob.id, 0)
			s.send(ada, bob, "first")
			header := http.Header{"Accept": {test.accept}}
			r := s.stream(t, http.MethodPost, "/graphql", bob.token, header, subscription(after, nil))
			if line := r.until("first"); !strings.HasPrefix(line, test.next) {
				t.Errorf("got %s", line)
			}
			s.send(ada, bob, "second")
			r.until("second")

			r = s.stream(t, http.MethodPost, "/graphql", bob.token, header, subscription("nonsense", nil))
			if rest := r.until(""); !strings.Contains(rest, test.failed) || !strings.Contains(rest, "CURSOR_INVALID") {
				t.Errorf("got %s", rest)
			}
		})
	}
}

func TestOneStreamOfEventsForSeveralOperations(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	reserved := s.stream(t, http.MethodPut, "/graphql", bob.token, nil, nil)
	token := reserved.until("")
	if reserved.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", reserved.StatusCode, token)
	}
	with := http.Header{"X-Graphql-Event-Stream-Token": {token}}
	events := s.stream(t, http.MethodGet, "/graphql?token="+token, "", http.Header{"Accept": {"text/event-stream"}}, nil)

	for name, test := range map[string]struct {
		method, path, token string
		header              http.Header
		body                any
		status              int
	}{
		"the stream, twice":     {http.MethodGet, "/graphql", bob.token, http.Header{"Accept": {"text/event-stream"}, "X-Graphql-Event-Stream-Token": {token}}, nil, http.StatusConflict},
		"an unknown stream":     {http.MethodGet, "/graphql?token=x", "", http.Header{"Accept": {"text/event-stream"}}, nil, http.StatusNotFound},
		"a reservation":         {http.MethodPut, "/graphql", "", nil, nil, http.StatusUnauthorized},
		"somebody else's":       {http.MethodPost, "/graphql", ada.token, with, subscription("", map[string]any{"operationId": "x"}), http.StatusNotFound},
		"nobody's":              {http.MethodPost, "/graphql", "", with, subscription("", map[string]any{"operationId": "x"}), http.StatusUnauthorized},
		"an end by another":     {http.MethodDelete, "/graphql?operationId=1", ada.token, with, nil, http.StatusNotFound},
		"no operation's id":     {http.MethodPost, "/graphql", bob.token, with, subscription("", nil), http.StatusBadRequest},
		"an end of no one":      {http.MethodDelete, "/graphql", bob.token, with, nil, http.StatusBadRequest},
		"an operation":          {http.MethodPost, "/graphql", bob.token, with, subscription(cursorOf(bob.id, 0), map[string]any{"operationId": "1"}), http.StatusAccepted},
		"one that is not valid": {http.MethodPost, "/graphql", bob.token, with, map[string]any{"query": "{", "extensions": map[string]any{"operationId": "2"}}, http.StatusBadRequest},
	} {
		r := s.stream(t, test.method, test.path, test.token, test.header, test.body)
		if body := r.until(""); r.StatusCode != test.status {
			t.Errorf("%s: %d %s", name, r.StatusCode, body)
		}
	}
	if r := s.stream(t, http.MethodPost, "/graphql", bob.token, with, subscription("", map[string]any{"operationId": "1"})); r.StatusCode != http.StatusConflict {
		t.Errorf("the same operation's id again: %d", r.StatusCode)
	}
	s.send(ada, bob, "hello")
	line := events.until("hello")
	var event struct {
		ID      string
		Payload json.RawMessage
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &event); err != nil || event.ID != "1" {
		t.Errorf("%v: %s", err, line)
	}
	query := map[string]any{"query": `{ me { username } }`, "extensions": map[string]any{"operationId": "q"}}
	if r := s.stream(t, http.MethodPost, "/graphql", bob.token, with, query); r.StatusCode != http.StatusAccepted {
		t.Errorf("a query: %d", r.StatusCode)
	}
	events.until(`{"id":"q","payload":{"data":{"me":{"username":"bob"}}}}`)
	events.until(`{"id":"q"}`)
	if r := s.stream(t, http.MethodDelete, "/graphql?operationId=1", bob.token, with, nil); r.StatusCode != http.StatusOK {
		t.Errorf("the end of the operation: %d", r.StatusCode)
	}
	s.send(ada, bob, "after the end")
	s.stream(t, http.MethodPost, "/graphql", bob.token, with, map[string]any{
		"query": `{ __typename }`, "extensions": map[string]any{"operationId": "last"},
	})
	for events.lines.Scan() {
		if line := events.lines.Text(); strings.Contains(line, "after the end") {
			t.Errorf("got %s", line)
		} else if line == `data: {"id":"last"}` {
			return
		}
	}
	t.Errorf("the stream ended: %v", events.lines.Err())
}
