package graph

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

const friend = "https://chat.example.com"

func withFriend(c *Config) { c.AllowedOrigins = []string{friend} }

var foreign = []string{"https://evil.example", friend + ".evil.example", "http://chat.example.com", "null", "https://"}

func TestPreflights(t *testing.T) {
	s := start(t, withFriend)
	preflight := func(origin string) (int, http.Header) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, "http://"+s.addr+"/graphql", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header = http.Header{
			"Origin": {origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"authorization,content-type"},
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		return answer.StatusCode, answer.Header
	}
	status, h := preflight(friend)
	if status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != friend || h.Get("Vary") != "Origin" {
		t.Errorf("allowed: %d %v", status, h)
	}
	for _, name := range []string{
		"Authorization", "Content-Type", "Content-Encoding", "Apollo-Require-Preflight", "X-GraphQL-Event-Stream-Token", "Traceparent",
	} {
		if !strings.Contains(h.Get("Access-Control-Allow-Headers")+",", name+",") {
			t.Errorf("the header %s is not allowed: %v", name, h)
		}
	}
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		if !strings.Contains(h.Get("Access-Control-Allow-Methods"), method) {
			t.Errorf("the method %s is not allowed: %v", method, h)
		}
	}
	for _, origin := range foreign {
		if status, h := preflight(origin); status != http.StatusForbidden || h.Get("Access-Control-Allow-Origin") != "" ||
			h.Get("Access-Control-Allow-Headers") != "" {
			t.Errorf("%s: %d %v", origin, status, h)
		}
	}
}

func TestForeignOriginsAreRefusedByEveryTransport(t *testing.T) {
	s := start(t, withFriend)
	ada := s.add(t, "ada")
	subscription := `{"query":"subscription { newMessage { cursor } }"}`
	for name, test := range map[string]struct {
		method, path, accept, body string
	}{
		"POST":        {"POST", "/graphql", graphQLJSON, `{"query":"{ me { id } }"}`},
		"GET":         {"GET", "/graphql?query=%7Bme%7Bid%7D%7D", graphQLJSON, ""},
		"events":      {"POST", "/graphql", "text/event-stream", subscription},
		"parts":       {"POST", "/graphql", "multipart/mixed;subscriptionSpec=1.0, application/json", subscription},
		"reservation": {"PUT", "/graphql", "", ""},
		"completion":  {"DELETE", "/graphql?operationId=1", "", ""},
	} {
		for _, origin := range foreign {
			header := http.Header{
				"Origin": {origin}, "Accept": {test.accept}, "Authorization": {"Bearer " + ada.token}, "Apollo-Require-Preflight": {"1"},
				"Content-Type": {"application/json"}, "Sec-Fetch-Site": {"cross-site"},
			}
			calls := s.counted(func() {
				r := s.do(t, test.method, test.path, header, test.body)
				if r.Status != http.StatusForbidden || r.code() != "FORBIDDEN" || r.Header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s from %s: %d %s", name, origin, r.Status, r.Raw)
				}
			})
			if len(calls) > 0 {
				t.Errorf("%s from %s came as far as %v", name, origin, calls)
			}
		}
	}
	for _, origin := range foreign {
		dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
		conn, answer, err := dialer.DialContext(t.Context(), "ws://"+s.addr+"/graphql", http.Header{"Origin": {origin}})
		if err == nil {
			_ = answer.Body.Close()
			_ = conn.Close()
			t.Errorf("a WebSocket from %s is open", origin)
			continue
		}
		if answer == nil {
			t.Errorf("a WebSocket from %s: %v", origin, err)
			continue
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden {
			t.Errorf("a WebSocket from %s: %d", origin, answer.StatusCode)
		}
	}
	// Those that may are answered, and may read the answer.
	for origin, allowed := range map[string]string{friend: friend, "http://" + s.addr: "", "https://" + s.addr: ""} {
		r := s.do(t, http.MethodPost, "/graphql", http.Header{"Content-Type": {"application/json"}, "Origin": {origin}}, `{"query":"{ __typename }"}`)
		if r.Status != http.StatusOK || r.Header.Get("Access-Control-Allow-Origin") != allowed ||
			strings.Contains(r.Header.Get("Access-Control-Expose-Headers"), "Retry-After") != (allowed != "") {
			t.Errorf("from %s: %d %v", origin, r.Status, r.Header)
		}
		s.dial(t, http.Header{"Origin": {origin}})
	}
}

func TestWhatAnotherSitesPageMayHaveCausedIsRefused(t *testing.T) {
	s := start(t, withFriend)
	get := "/graphql?query=" + url.QueryEscape("{ __typename }")
	jsonBody := `{"query":"{ __typename }"}`
	for name, test := range map[string]struct {
		method  string
		header  http.Header
		refused bool
	}{
		"no browser":                       {"GET", http.Header{}, false},
		"Node's fetch":                     {"GET", http.Header{"Sec-Fetch-Mode": {"cors"}}, false},
		"an image":                         {"GET", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}}, true},
		"an image of a neighbour":          {"GET", http.Header{"Sec-Fetch-Site": {"same-site"}}, true},
		"an unknown site":                  {"GET", http.Header{"Sec-Fetch-Site": {"unheard-of"}}, true},
		"a browser of old":                 {"GET", http.Header{"Cookie": {"a=b"}}, true},
		"our own page":                     {"GET", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Cookie": {"a=b"}}, false},
		"our own page behind a proxy":      {"GET", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Origin": {"https://outer.example"}}, false},
		"the address line":                 {"GET", http.Header{"Sec-Fetch-Site": {"none"}, "Cookie": {"a=b"}}, false},
		"an allowed page":                  {"GET", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {friend}}, false},
		"a script that asked":              {"GET", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Apollo-Require-Preflight": {"true"}}, false},
		"a script that asked with nothing": {"GET", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Apollo-Require-Preflight": {""}}, true},
		"Apollo's own header":              {"GET", http.Header{"Cookie": {"a=b"}, "X-Apollo-Operation-Name": {"A"}}, false},
		"a JSON type":                      {"GET", http.Header{"Cookie": {"a=b"}, "Content-Type": {"application/json"}}, false},
		"a form's type":                    {"GET", http.Header{"Cookie": {"a=b"}, "Content-Type": {"text/plain"}}, true},
		"a form's type that says JSON in a parameter": {"GET", http.Header{"Cookie": {"a=b"}, "Content-Type": {"text/plain; application/json"}}, true},
		"JSON":                    {"POST", http.Header{"Cookie": {"a=b"}, "Content-Type": {"application/json; charset=utf-8"}}, false},
		"a form":                  {"POST", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Content-Type": {"application/x-www-form-urlencoded"}}, true},
		"a beacon":                {"POST", http.Header{"Cookie": {"a=b"}, "Content-Type": {"text/plain"}}, true},
		"a beacon without a type": {"POST", http.Header{"Cookie": {"a=b"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			path, body := get, ""
			if test.method == http.MethodPost {
				path, body = "/graphql", jsonBody
			}
			r := s.do(t, test.method, path, test.header, body)
			if test.refused != (r.Status == http.StatusForbidden) || test.refused != (r.code() == "FORBIDDEN") {
				t.Errorf("%d %s", r.Status, r.Raw)
			}
			if !test.refused && r.Status != http.StatusOK {
				t.Errorf("%d %s", r.Status, r.Raw)
			}
		})
	}
	// No browser opens a WebSocket without an Origin, whatever its cookies are.
	s.dial(t, http.Header{"Cookie": {"a=b"}})
}
