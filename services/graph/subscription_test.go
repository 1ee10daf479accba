package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/ids"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// client speaks graphql-transport-ws.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

type wsMessage struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// dial opens a socket that has said nothing yet.
func (s *server) dial(t *testing.T, header http.Header) *client {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}, HandshakeTimeout: patience}
	conn, answer, err := dialer.DialContext(t.Context(), "ws://"+s.addr+"/graphql", header)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, conn: conn}
}

// connect opens a socket and introduces it.
func (s *server) connect(t *testing.T, token string) *client {
	t.Helper()
	c := s.dial(t, nil)
	c.send(wsMessage{Type: "connection_init", Payload: encode(t, map[string]string{"authorization": "Bearer " + token})})
	if m := c.receive(); m.Type != "connection_ack" {
		t.Fatalf("connection_init was answered with %s %s", m.Type, m.Payload)
	}
	return c
}

func encode(t *testing.T, v any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (c *client) send(m wsMessage) {
	c.t.Helper()
	if err := c.conn.WriteJSON(m); err != nil {
		c.t.Fatal(err)
	}
}

// subscribe starts an operation.
func (c *client) subscribe(id, query string, variables map[string]any) {
	c.t.Helper()
	c.send(wsMessage{ID: id, Type: "subscribe", Payload: encode(c.t, map[string]any{"query": query, "variables": variables})})
}

// receive returns the next message that is no ping.
func (c *client) receive() wsMessage {
	c.t.Helper()
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		var m wsMessage
		if err := c.conn.ReadJSON(&m); err != nil {
			c.t.Fatalf("waiting for a message: %v", err)
		}
		if m.Type != "ping" {
			return m
		}
	}
}

// closed returns the code with which the server closes the socket, and the messages before.
func (c *client) closed() (code int, before []wsMessage) {
	c.t.Helper()
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		var m wsMessage
		if err := c.conn.ReadJSON(&m); err != nil {
			var closed *websocket.CloseError
			if errors.As(err, &closed) {
				return closed.Code, before
			}
			c.t.Fatalf("waiting for a close: %v", err)
		}
		before = append(before, m)
	}
}

// silent asserts that the server has sent nothing that was not received yet.
func (c *client) silent() {
	c.t.Helper()
	c.send(wsMessage{Type: "ping"})
	if m := c.receive(); m.Type != "pong" {
		c.t.Errorf("got %+v", m)
	}
}

const newMessage = `subscription($after: Cursor) { newMessage(after: $after) { cursor message { seq body sender { username } } } }`

type event struct {
	Data struct {
		NewMessage struct {
			Cursor  string
			Message struct {
				Seq    int
				Body   string
				Sender struct{ Username string }
			}
		}
	}
	Errors []apiError
}

// event receives a next message of a subscription.
func (c *client) event() event {
	c.t.Helper()
	m := c.receive()
	var e event
	if m.Type != "next" {
		c.t.Fatalf("got %s %s instead of an event", m.Type, m.Payload)
	}
	if err := json.Unmarshal(m.Payload, &e); err != nil {
		c.t.Fatal(err)
	}
	if len(e.Errors) > 0 {
		c.t.Fatalf("the event has errors: %s", m.Payload)
	}
	return e
}

// failure receives an error message and returns its first code.
func (c *client) failure() string {
	c.t.Helper()
	m := c.receive()
	var list []apiError
	if m.Type != "error" || json.Unmarshal(m.Payload, &list) != nil || len(list) == 0 {
		c.t.Fatalf("got %s %s instead of an error", m.Type, m.Payload)
	}
	if id, _ := list[0].Extensions["traceId"].(string); len(id) != 32 {
		c.t.Errorf("the error has no traceId: %s", m.Payload)
	}
	code, _ := list[0].Extensions["code"].(string)
	return code
}

// established waits until a subscription is: an event that was sent before the hub had its place would not come.
func (s *server) established(t *testing.T, c *client, id string, variables map[string]any) {
	t.Helper()
	calls := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.calls["GetCursor"] + s.calls["ReadLog"]
	}
	before := calls()
	c.subscribe(id, newMessage, variables)
	waitFor(t, func() bool { return calls() > before })
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in time")
		}
	}
}

func TestEveryConnectionOfBothGetsTheMessage(t *testing.T) {
	s := start(t, nil)
	ada, bob, eve := s.add(t, "ada"), s.add(t, "bob"), s.add(t, "eve")
	var clients []*client
	for _, who := range []person{ada, ada, bob, bob} {
		c := s.connect(t, who.token)
		s.established(t, c, "1", nil)
		clients = append(clients, c)
	}
	third := s.connect(t, eve.token)
	s.established(t, third, "1", nil)

	sent := sendMessage(t, s, ada.token, map[string]any{
		"recipientId": userID(bob.id), "body": "hello", "clientId": ids.New().String(),
	})
	for i, c := range clients {
		got := c.event().Data.NewMessage
		if got.Message.Body != "hello" || got.Message.Seq != sent.Message.Seq || got.Message.Sender.Username != "ada" || got.Cursor == "" {
			t.Errorf("client %d got %+v", i, got)
		}
	}
	// What eve gets first is her own, sent after it.
	s.send(eve, eve, "a note")
	if got := third.event().Data.NewMessage.Message.Body; got != "a note" {
		t.Errorf("somebody else got %q", got)
	}
}

func TestResumeAfterACursor(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	cursor := ask[struct{ Cursor string }](t, s, ada.token, `{ cursor }`, nil).Cursor
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprint(i))
		s.send(bob, ada, want[i])
	}
	c := s.connect(t, ada.token)
	c.subscribe("1", newMessage, map[string]any{"after": cursor})
	var got []string
	for range want {
		e := c.event().Data.NewMessage
		got = append(got, e.Message.Body)
		cursor = e.Cursor
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.send(bob, ada, "live")
	if got := c.event().Data.NewMessage.Message.Body; got != "live" {
		t.Errorf("got %q", got)
	}
	// Another operation on the same socket, from the cursor of the thirtieth.
	c.send(wsMessage{ID: "1", Type: "complete"})
	c.subscribe("2", newMessage, map[string]any{"after": cursor})
	for {
		m := c.receive()
		if m.ID == "2" {
			if m.Type != "next" || !strings.Contains(string(m.Payload), `"live"`) {
				t.Errorf("got %s %s", m.Type, m.Payload)
			}
			return
		}
	}
}

func TestNullCursorMeansFromNow(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	s.send(ada, ada, "before")
	c := s.connect(t, ada.token)
	s.established(t, c, "1", map[string]any{"after": nil})
	s.send(ada, ada, "after")
	if got := c.event().Data.NewMessage.Message.Body; got != "after" {
		t.Errorf("got %q", got)
	}
}

func TestWrongCursorEndsTheSubscriptionWithItsCode(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	theirs := ask[struct{ Cursor string }](t, s, bob.token, `{ cursor }`, nil).Cursor
	c := s.connect(t, ada.token)
	for name, cursor := range map[string]any{"garbage": "garbage", "somebody else's": theirs, "empty": "", "a number": 7} {
		c.subscribe(name, newMessage, map[string]any{"after": cursor})
		if code := c.failure(); code != "CURSOR_INVALID" {
			t.Errorf("%s: %s", name, code)
		}
	}
	// The socket goes on.
	s.established(t, c, "good", nil)
	s.send(bob, ada, "hello")
	if got := c.event().Data.NewMessage.Message.Body; got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestSocketNeedsAToken(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	payloads := map[string]json.RawMessage{
		"none": nil, "empty": json.RawMessage(`{}`), "no bearer": encode(t, map[string]string{"authorization": ada.token}),
		"a number": json.RawMessage(`{"authorization": 7}`),
	}
	for kind, token := range forged(t, s, ada) {
		payloads[kind] = encode(t, map[string]string{"authorization": "Bearer " + token})
	}
	for name, payload := range payloads {
		t.Run(name, func(t *testing.T) {
			// A good token in the header stands for nothing: a browser could not send it.
			c := s.dial(t, http.Header{"Authorization": {"Bearer " + ada.token}})
			c.send(wsMessage{Type: "connection_init", Payload: payload})
			if code, before := c.closed(); code != 4403 || len(before) > 0 {
				t.Errorf("closed with %d after %v", code, before)
			}
		})
	}
}

func TestQueriesAndMutationsOnASocket(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	c := s.connect(t, ada.token)
	c.subscribe("q", `{ me { username } }`, nil)
	if m := c.receive(); m.Type != "next" || string(m.Payload) != `{"data":{"me":{"username":"ada"}}}` {
		t.Errorf("got %s %s", m.Type, m.Payload)
	}
	if m := c.receive(); m.Type != "complete" || m.ID != "q" {
		t.Errorf("got %+v", m)
	}
	c.subscribe("m", `mutation($b: String!) { sendMessage(input: {recipientId: "`+userID(ada.id)+`", body: $b, clientId: "`+
		ids.New().String()+`"}) { message { body } } }`, map[string]any{"b": "hello"})
	if m := c.receive(); m.Type != "next" || !strings.Contains(string(m.Payload), `"hello"`) {
		t.Errorf("got %s %s", m.Type, m.Payload)
	}
	if m := c.receive(); m.Type != "complete" {
		t.Errorf("got %+v", m)
	}
	for query, want := range map[string]string{
		`{`:                           "GRAPHQL_PARSE_FAILED",
		`{ nothing }`:                 "GRAPHQL_VALIDATION_FAILED",
		`subscription { __typename }`: "GRAPHQL_VALIDATION_FAILED",
		`query($id: ID!) { user(id: $id) { id } }`: "BAD_USER_INPUT",
	} {
		c.subscribe("e", query, nil)
		if code := c.failure(); code != want {
			t.Errorf("%s: %s", query, code)
		}
	}
	c.silent()
}

func TestSocketEndsWithItsToken(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	c := s.connect(t, s.token(t, ada.id, 3*time.Second))
	s.established(t, c, "1", nil)
	if code, before := c.closed(); code != 4403 || len(before) > 0 {
		t.Errorf("the socket was closed with %d after %v", code, before)
	}
}

func TestEventThatCannotBeDeliveredEndsTheSubscription(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	c := s.connect(t, ada.token)
	s.established(t, c, "1", nil)
	s.send(bob, ada, "first")
	cursor := c.event().Data.NewMessage.Cursor
	s.fail("BatchGetUsers", fmt.Errorf("secret"))
	s.send(bob, ada, "second")
	if code := c.failure(); code != "INTERNAL_SERVER_ERROR" {
		t.Errorf("it ended with %s", code)
	}
	s.fail("BatchGetUsers", nil)
	s.send(bob, ada, "third")
	c.subscribe("2", newMessage, map[string]any{"after": cursor})
	for _, want := range []string{"second", "third"} {
		if got := c.event().Data.NewMessage.Message.Body; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestEachEventIsReadAfresh(t *testing.T) {
	s := start(t, nil)
	ada, bob := s.add(t, "ada"), s.add(t, "bob")
	c := s.connect(t, ada.token)
	s.established(t, c, "1", nil)
	for _, name := range []string{"bob", "robert"} {
		s.mu.Lock()
		s.users[1] = &usersv1.User{Id: bob.id.Bytes(), Username: name}
		s.mu.Unlock()
		calls := s.counted(func() {
			s.send(bob, ada, "hello")
			if got := c.event().Data.NewMessage.Message.Sender.Username; got != name {
				t.Errorf("the sender is %s, not %s", got, name)
			}
		})
		if calls["BatchGetUsers"] != 1 {
			t.Errorf("an event costs %v", calls)
		}
	}
}

func TestStoppingTellsSocketsToConnectAgain(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	c := s.connect(t, ada.token)
	s.established(t, c, "1", nil)
	go s.stop()
	if code, before := c.closed(); code != websocket.CloseServiceRestart || len(before) > 0 {
		t.Errorf("closed with %d after %v", code, before)
	}
}

func TestSocketsOfOtherSitesAreRefused(t *testing.T) {
	s := start(t, func(c *Config) { c.AllowedOrigins = []string{"https://chat.example.com"} })
	for origin, allowed := range map[string]bool{
		"": true, "http://" + s.addr: true, "https://" + s.addr: true, "https://chat.example.com": true,
		"https://evil.example": false, "null": false, "http://chat.example.com": false, "https://chat.example.com.evil.example": false,
	} {
		dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, answer, err := dialer.DialContext(t.Context(), "ws://"+s.addr+"/graphql", header)
		if (err == nil) != allowed {
			t.Errorf("%q: %v", origin, err)
		}
		if err == nil {
			_ = conn.Close()
		} else if answer.StatusCode != http.StatusForbidden {
			t.Errorf("%q: %d", origin, answer.StatusCode)
		}
		_ = answer.Body.Close()
	}
}

func TestSocketsThatAreNone(t *testing.T) {
	s := start(t, nil)
	upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	with := func(name, value string) http.Header {
		h := upgrade.Clone()
		h.Set(name, value)
		return h
	}
	for name, header := range map[string]http.Header{
		"no key":     with("Sec-Websocket-Protocol", "graphql-transport-ws"),
		"no version": with("Sec-Websocket-Version", "12"),
	} {
		r := s.do(t, http.MethodGet, "/graphql", header, "")
		if r.Status != http.StatusBadRequest || r.code() != "BAD_USER_INPUT" {
			t.Errorf("%s: %d %s", name, r.Status, r.Raw)
		}
	}
}

func TestAPingWithATokenThatIsNoneClosesTheSocket(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	for _, token := range []any{"", "Bearer", 7, nil, map[string]any{}} {
		c := s.connect(t, ada.token)
		c.send(wsMessage{Type: "ping", Payload: encode(t, map[string]any{"authorization": token})})
		if code, before := c.closed(); code != 4403 || len(before) > 0 {
			t.Errorf("%v: closed with %d after %v", token, code, before)
		}
	}
}

func TestOtherSubprotocolsAreClosedWithTheirOwnCode(t *testing.T) {
	s := start(t, nil)
	for _, offered := range [][]string{nil, {"graphql-ws"}} {
		dialer := websocket.Dialer{Subprotocols: offered, HandshakeTimeout: patience}
		conn, answer, err := dialer.DialContext(t.Context(), "ws://"+s.addr+"/graphql", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if code, before := (&client{t: t, conn: conn}).closed(); code != 4406 || len(before) > 0 {
			t.Errorf("%v: closed with %d after %v", offered, code, before)
		}
		_ = conn.Close()
	}
}

func TestMessagesThatAreNone(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	for name, test := range map[string]struct {
		kind int
		body string
		code int
	}{
		"binary":         {websocket.BinaryMessage, `{"type":"ping"}`, 4400},
		"invalid UTF-8":  {websocket.TextMessage, `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } } # ` + "\xff" + `"}}`, 4400},
		"lone surrogate": {websocket.TextMessage, `{"id":"1","type":"subscribe","payload":{"query":"{ me { id } } # \ud800"}}`, 4400},
		"too large":      {websocket.TextMessage, `{"type":"ping","payload":{"x":"` + strings.Repeat("x", 256<<10) + `"}}`, 1009},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.connect(t, ada.token)
			if err := c.conn.WriteMessage(test.kind, []byte(test.body)); err != nil {
				t.Fatal(err)
			}
			if code, before := c.closed(); code != test.code || len(before) > 0 {
				t.Errorf("closed with %d after %v", code, before)
			}
		})
	}
}

func TestOperationsOnASocketAreLimited(t *testing.T) {
	s := start(t, nil)
	ada := s.add(t, "ada")
	c := s.connect(t, ada.token)
	for i := range 101 {
		c.subscribe(fmt.Sprint(i), newMessage, nil)
	}
	if code := c.failure(); code != "RATE_LIMITED" {
		t.Errorf("got %s", code)
	}
	for i := range 100 {
		c.send(wsMessage{ID: fmt.Sprint(i), Type: "complete"})
	}
	c.silent()
	c.subscribe("0", `{ __typename }`, nil)
	if m := c.receive(); m.Type != "next" {
		t.Errorf("got %+v", m)
	}
}
