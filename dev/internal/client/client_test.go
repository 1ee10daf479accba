package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// message is one that a server could send.
func message(seq int) string {
	return fmt.Sprintf(`{"id":"m%d","seq":%d,"body":"text %d","sentAt":"2025-06-01T09:30:00Z","clientId":"c%d",
		"sender":{"id":"u","username":"ann","displayName":"Ann"},"conversation":{"id":"c"}}`, seq, seq, seq, seq)
}

func TestAnswersThatBreakTheContractAreNotBelieved(t *testing.T) {
	good := `{"data":{"sendMessage":{"message":` + message(1) + `,"userErrors":[]}}}`
	tests := []struct {
		name, answer, kind string
		status             int
		contract           bool   // Whether the contract is broken.
		code               string // Of the error otherwise; empty for none.
	}{
		{"a message", good, "application/graphql-response+json", 200, false, ""},
		{"an older media type", good, "application/json; charset=utf-8", 200, false, ""},
		{"no JSON", "Bad Gateway", "text/html", 502, true, ""},
		{"broken JSON", `{"data":`, "application/json", 200, true, ""},
		{"another object", `{"message":"not found"}`, "application/json", 404, true, ""},
		{"nothing", `{}`, "application/json", 200, true, ""},
		{"null without a reason", `{"data":null}`, "application/json", 200, true, ""},
		{"data with a bad status", good, "application/json", 500, true, ""},
		{"errors", `{"errors":[{"message":"later","extensions":{"code":"UNAVAILABLE"}}]}`, "application/json", 503, false, "UNAVAILABLE"},
		{
			"errors beside data", `{"data":{"sendMessage":null},"errors":[{"message":"no","extensions":{"code":"FORBIDDEN"}}]}`,
			"application/json", 200, false, "FORBIDDEN",
		},
		{"a payload without anything", `{"data":{"sendMessage":{"message":null,"userErrors":[]}}}`, "application/json", 200, true, ""},
		{
			"a payload with both", `{"data":{"sendMessage":{"message":` + message(1) + `,"userErrors":[{"code":"REQUIRED","message":"no","field":["body"]}]}}}`,
			"application/json", 200, true, "",
		},
		{"a message without a number", strings.Replace(good, `"seq":1`, `"seq":0`, 1), "application/json", 200, true, ""},
		{"a message without an id", strings.Replace(good, `"m1"`, `""`, 1), "application/json", 200, true, ""},
		{"one's own message without its client id", strings.Replace(good, `"c1"`, `null`, 1), "application/json", 200, true, ""},
	}
	for _, tt := range tests {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tt.kind)
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.answer))
		}))
		_, err := New(server.URL).Send(t.Context(), Draft{RecipientID: "u", Body: "text 1", ClientID: "c1"})
		var contract *ContractError
		if errors.As(err, &contract) != tt.contract || Code(err) != tt.code || (err == nil) != (!tt.contract && tt.code == "") {
			t.Errorf("%s: got %v", tt.name, err)
		}
		server.Close()
	}
}

func TestRetryable(t *testing.T) {
	coded := func(code string) error {
		e := ResponseError{}
		e.Extensions.Code = code
		return fmt.Errorf("send: %w", &Errors{List: []ResponseError{e}})
	}
	tests := []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("connection refused"), true},
		{coded("UNAVAILABLE"), true},
		{coded("INTERNAL_SERVER_ERROR"), false},
		{coded("CURSOR_INVALID"), false},
		{UserErrors{{Code: "REQUIRED"}}, false},
		{broken("anything"), false},
		{ErrCompleted, false},
		{&CloseError{Code: websocket.CloseServiceRestart}, true},
		{&CloseError{Code: websocket.CloseGoingAway}, true},
		{&CloseError{Code: websocket.CloseTryAgainLater}, true},
		{&CloseError{Code: websocket.CloseInternalServerErr}, false},
		{&CloseError{Code: 4403}, false},
	}
	for _, tt := range tests {
		if got := Retryable(tt.err); got != tt.want {
			t.Errorf("%v: got %t", tt.err, got)
		}
	}
}

// socketServer speaks graphql-transport-ws. Each connection is answered by the next script, given the cursor that was
// subscribed after.
func socketServer(t *testing.T, scripts ...func(conn *websocket.Conn, after string)) (endpoint string, afters func() []string) {
	t.Helper()
	var (
		mu   sync.Mutex
		seen []string
		next int
	)
	upgrader := websocket.Upgrader{Subprotocols: []string{subprotocol}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		var init, subscribe struct {
			Type    string
			Payload struct {
				Authorization string
				Variables     struct{ After string }
			}
		}
		if err := conn.ReadJSON(&init); err != nil || init.Type != "connection_init" || init.Payload.Authorization != "Bearer token" {
			t.Errorf("the first frame is %+v, %v", init, err)
		}
		frames(conn, `{"type":"ping"}`, `{"type":"connection_ack"}`)
		var pong frame
		if err := conn.ReadJSON(&pong); err != nil || pong.Type != "pong" {
			t.Errorf("a ping is answered with %+v, %v", pong, err)
		}
		if err := conn.ReadJSON(&subscribe); err != nil || subscribe.Type != "subscribe" {
			return // The client has gone.
		}
		mu.Lock()
		seen = append(seen, subscribe.Payload.Variables.After)
		script := scripts[min(next, len(scripts)-1)]
		next++
		mu.Unlock()
		script(conn, subscribe.Payload.Variables.After)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

func frames(conn *websocket.Conn, texts ...string) {
	for _, text := range texts {
		_ = conn.WriteMessage(websocket.TextMessage, []byte(text))
	}
}

func event(seq int) string {
	return fmt.Sprintf(`{"type":"next","id":"1","payload":{"data":{"newMessage":{"cursor":"cursor %d","message":%s}}}}`, seq, message(seq))
}

// hold keeps a connection open until the client leaves.
func hold(conn *websocket.Conn) {
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
	}
}

func TestASubscriptionEndsWithTheReason(t *testing.T) {
	tests := []struct {
		name   string
		script func(conn *websocket.Conn)
		events int
		check  func(err error) bool
	}{
		{"an error", func(conn *websocket.Conn) {
			frames(conn, event(1), `{"type":"error","id":"1","payload":[{"message":"old","extensions":{"code":"CURSOR_EXPIRED"}}]}`)
			hold(conn)
		}, 1, func(err error) bool { return Code(err) == "CURSOR_EXPIRED" }},
		{"an event with errors", func(conn *websocket.Conn) {
			frames(conn, `{"type":"next","id":"1","payload":{"data":null,"errors":[{"message":"x","extensions":{"code":"UNAVAILABLE"}}]}}`)
			hold(conn)
		}, 0, func(err error) bool { return Code(err) == "UNAVAILABLE" }},
		{"completion", func(conn *websocket.Conn) {
			frames(conn, event(1), event(2), `{"type":"complete","id":"1"}`)
			hold(conn)
		}, 2, func(err error) bool { return errors.Is(err, ErrCompleted) }},
		{"a close with a code", func(conn *websocket.Conn) {
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4403, "Forbidden"), time.Now().Add(time.Second))
		}, 0, func(err error) bool { var e *CloseError; return errors.As(err, &e) && e.Code == 4403 }},
		{"a broken connection", func(*websocket.Conn) {}, 0, Retryable},
		{
			"a frame of no protocol", func(conn *websocket.Conn) { frames(conn, `hello`); hold(conn) }, 0,
			func(err error) bool { var e *ContractError; return errors.As(err, &e) },
		},
		{
			"a frame of another protocol", func(conn *websocket.Conn) { frames(conn, `{"type":"data","id":"1"}`); hold(conn) }, 0,
			func(err error) bool { var e *ContractError; return errors.As(err, &e) },
		},
		{"an event without a cursor", func(conn *websocket.Conn) {
			frames(conn, strings.Replace(event(1), "cursor 1", "", 1))
			hold(conn)
		}, 0, func(err error) bool { var e *ContractError; return errors.As(err, &e) }},
	}
	for _, tt := range tests {
		endpoint, _ := socketServer(t, func(conn *websocket.Conn, _ string) { tt.script(conn) })
		sub, err := New(endpoint).As(User{}, "token").Subscribe(t.Context(), "start")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		events := 0
		for range sub.Events() {
			events++
		}
		if err := sub.Err(); events != tt.events || err == nil || !tt.check(err) {
			t.Errorf("%s: after %d events the subscription ends with %v", tt.name, events, err)
		}
		sub.Socket().Close()
	}
}

func TestAFollowerResumesAfterTheLastCursorUntilNoRetryIsDue(t *testing.T) {
	endpoint, afters := socketServer(t,
		func(conn *websocket.Conn, _ string) { frames(conn, event(1), event(2)) }, // And the connection breaks.
		func(*websocket.Conn, string) {},                                          // At once.
		func(conn *websocket.Conn, _ string) {
			frames(conn, event(3), `{"type":"error","id":"1","payload":[{"message":"x","extensions":{"code":"UNAVAILABLE"}}]}`)
			hold(conn)
		},
		func(conn *websocket.Conn, _ string) {
			frames(conn, `{"type":"error","id":"1","payload":[{"message":"x","extensions":{"code":"CURSOR_INVALID"}}]}`)
			hold(conn)
		},
	)
	f := New(endpoint).As(User{}, "token").Follow(t.Context(), "start")
	defer f.Close()
	var cursors []string
	for e := range f.Events() {
		cursors = append(cursors, e.Cursor)
	}
	if want := []string{"cursor 1", "cursor 2", "cursor 3"}; !slices.Equal(cursors, want) {
		t.Errorf("the follower yields %q, want %q", cursors, want)
	}
	if want := []string{"start", "cursor 2", "cursor 2", "cursor 3"}; !slices.Equal(afters(), want) {
		t.Errorf("it subscribes after %q, want %q", afters(), want)
	}
	if Code(f.Err()) != "CURSOR_INVALID" || f.Sockets() != 4 {
		t.Errorf("it ends with %v after %d sockets", f.Err(), f.Sockets())
	}
}

func TestAFollowerThatIsClosedOrCutEndsOrResumes(t *testing.T) {
	endpoint, afters := socketServer(t, func(conn *websocket.Conn, after string) {
		if after == "start" {
			frames(conn, event(1))
		}
		hold(conn)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f := New(endpoint).As(User{}, "token").Follow(ctx, "start")
	<-f.Events()
	f.Cut()
	for len(afters()) < 2 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	f.Close()
	if _, open := <-f.Events(); open || f.Err() != nil {
		t.Errorf("a closed follower has the error %v", f.Err())
	}
	if got := afters(); !slices.Equal(got, []string{"start", "cursor 1"}) {
		t.Errorf("it subscribes after %q", got)
	}
}

func TestSubscriptionsOfOneSocketEndByThemselves(t *testing.T) {
	served := make(chan struct{})
	endpoint, _ := socketServer(t, func(conn *websocket.Conn, _ string) {
		defer close(served)
		for i := range 3 {
			frames(conn, event(i+1))
		}
		var f frame
		for f.Type != "complete" {
			if _, raw, err := conn.ReadMessage(); err != nil || json.Unmarshal(raw, &f) != nil {
				t.Errorf("before the complete: %v", err)
				return
			}
		}
		frames(conn, event(4)) // It crosses.
		hold(conn)
	})
	socket, err := New(endpoint).As(User{}, "token").Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sub, err := socket.Subscribe("")
	if err != nil {
		t.Fatal(err)
	}
	<-sub.Events()
	if err := sub.Complete(); err != nil {
		t.Fatal(err)
	}
	for range sub.Events() { // What had arrived already.
		continue
	}
	if !errors.Is(sub.Err(), ErrClosed) {
		t.Errorf("the subscription ends with %v", sub.Err())
	}
	select {
	case <-socket.Done():
		t.Errorf("the socket ended with it: %v", socket.Err())
	default:
	}
	socket.Close()
	<-served
}
