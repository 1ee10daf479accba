package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/ids"
)

// startGraph starts one more graph process with settings of its own, and returns the client at it.
func startGraph(t *testing.T, stack *harness.Stack, env ...string) (endpoint string) {
	t.Helper()
	p, err := stack.StartGraph(t.Context(), env...)
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + p.Addr() + "/graphql"
}

func TestTimesThatASocketHasAreLimitedAndSettings(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{}))
	endpoint := startGraph(t, stack, "GRAPH_SOCKET_INIT_TIMEOUT=3s", "GRAPH_SOCKET_IDLE_TIMEOUT=3s",
		"GRAPH_SOCKET_PING_INTERVAL=1s", "GRAPH_SOCKET_PONG_TIMEOUT=1s")
	ann := account(t, stack, "Ann").At(endpoint)
	t.Run("no connection_init in time closes it with 4408", func(t *testing.T) {
		t.Parallel()
		s := dialRaw(t, endpoint)
		s.quiet() // Whatever else is said is no introduction.
		if reason := s.wantClose(4408); reason != "Connection initialisation timeout" {
			t.Errorf("the reason is %q", reason)
		}
	})
	t.Run("no operation for the idle time closes it with 1000", func(t *testing.T) {
		t.Parallel()
		connectRaw(t, ann).wantClose(1000)
	})
	t.Run("and so does no operation any more", func(t *testing.T) {
		t.Parallel()
		s := connectRaw(t, ann)
		s.subscribe("1", newMessage, map[string]any{"after": cursor(t, ann)})
		s.text(`{"type":"complete","id":"1"}`)
		s.wantClose(1000)
	})
	t.Run("a ping that is not answered closes it with 1013", func(t *testing.T) {
		t.Parallel()
		s := connectRaw(t, ann)
		s.subscribe("1", newMessage, map[string]any{"after": cursor(t, ann)})
		for {
			f, err := s.frame()
			if err != nil {
				t.Fatal(err)
			}
			if f.opcode == opClose {
				if end := s.readClose(f.payload); end.code != 1013 {
					t.Errorf("the socket ends with %v", end)
				}
				break
			}
		}
	})
	t.Run("a reservation that nobody comes for is forgotten", func(t *testing.T) {
		t.Parallel()
		reserved := request(t, ann, http.MethodPut, endpoint, nil)
		token, err := io.ReadAll(reserved.Body)
		if err != nil || reserved.StatusCode != http.StatusCreated {
			t.Fatalf("the reservation is answered with %s, %v", reserved.Status, err)
		}
		eventually(t, "it is forgotten", func(context.Context) (bool, error) {
			// This asks for nothing that would use it.
			answer := request(t, ann, http.MethodDelete, endpoint+"?operationId=none", nil, "X-GraphQL-Event-Stream-Token: "+string(token))
			return answer.StatusCode == http.StatusNotFound, nil
		})
	})
	t.Run("streams that are silent are kept from looking dead", func(t *testing.T) {
		t.Parallel()
		bob := account(t, stack, "Bob").At(endpoint)
		events, ok := openEvents(http.MethodPost)(t, bob, newMessage, map[string]any{"after": cursor(t, bob)}).(eventsFlow)
		if !ok {
			t.Fatal("the events are refused")
		}
		for range 3 {
			line, err := events.in.ReadString('\n')
			for err == nil && strings.TrimSpace(line) == "" {
				line, err = events.in.ReadString('\n')
			}
			if err != nil || !strings.HasPrefix(line, ":") {
				t.Fatalf("got %q, %v, want a comment", line, err)
			}
		}
		parts, ok := openMultipart(multipartAccept)(t, bob, newMessage, map[string]any{"after": cursor(t, bob)}).(*multipartFlow)
		if !ok {
			t.Fatal("the parts are refused")
		}
		beats := 0
		for beats < 3 {
			content, err := parts.part(t)
			if err != nil {
				t.Fatalf("got %q, %v, want a heartbeat", content, err)
			}
			if strings.HasSuffix(strings.TrimSpace(string(content)), "\r\n\r\n{}") {
				beats++
			}
		}
	})
	t.Run("and a client that answers stays for as long as it has an operation", func(t *testing.T) {
		t.Parallel()
		bob := account(t, stack, "Bob")
		s := connectRaw(t, bob.At(endpoint))
		s.subscribe("1", newMessage, map[string]any{"after": cursor(t, bob)})
		talked := make(chan struct{})
		go func() {
			defer close(talked)
			time.Sleep(5 * time.Second)
			_, err := bob.Send(t.Context(), client.Draft{RecipientID: bob.User.ID, Body: "still here", ClientID: ids.New().String()})
			if err != nil {
				t.Errorf("send: %v", err)
			}
		}()
		s.wantEvent("1", "still here")
		<-talked
	})
}

func TestNumbersThatASocketAndAUserHaveAreLimitedAndSettings(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{}))
	endpoint := startGraph(t, stack, "GRAPH_SOCKET_OPERATIONS=5", "GRAPH_SOCKET_PER_USER=3", "GRAPH_SOCKET_MESSAGE_BYTES=4096")
	t.Run("one operation too many is an error of its own", func(t *testing.T) {
		t.Parallel()
		ann := account(t, stack, "Ann").At(endpoint)
		s := connectRaw(t, ann)
		variables := map[string]any{"after": cursor(t, ann)}
		for i := range 5 {
			s.subscribe(fmt.Sprint(i), newMessage, variables)
		}
		for _, query := range []string{newMessage, "{ me { id } }"} {
			s.subscribe("too many", query, nil)
			s.wantError("too many", "RATE_LIMITED")
		}
		// The others go on, and the end of one makes room.
		s.text(`{"type":"complete","id":"3"}`)
		s.subscribe("3", "{ me { username } }", nil)
		s.want("next", "3")
		s.want("complete", "3")
		send(t, ann, ann, "to four")
		got := map[string]bool{}
		for range 4 {
			m := s.message()
			if m.Type != "next" || eventBody(m.Payload) != "to four" {
				t.Fatalf("got %s", m.raw)
			}
			got[m.ID] = true
		}
		if len(got) != 4 || got["3"] {
			t.Errorf("the event went to %v", got)
		}
	})
	t.Run("one connection of a user too many closes it with 1013", func(t *testing.T) {
		t.Parallel()
		bob, eve := account(t, stack, "Bob").At(endpoint), account(t, stack, "Eve").At(endpoint)
		var sockets []*rawSocket
		for range 3 {
			sockets = append(sockets, connectRaw(t, bob))
		}
		s := dialRaw(t, endpoint)
		s.init(bob.Token)
		s.wantClose(1013)
		connectRaw(t, eve)
		sockets[1].frames(closeFrame(1000, ""))
		sockets[1].wantClose(1000)
		connected := false
		eventually(t, "there is room for another", func(context.Context) (bool, error) {
			s := dialRaw(t, endpoint)
			s.init(bob.Token)
			_, end := s.receive()
			connected = end == nil
			return connected, nil
		})
		sockets[0].quiet()
	})
	t.Run("one stream of a user too many is refused", func(t *testing.T) {
		t.Parallel()
		bob := account(t, stack, "Bob").At(endpoint)
		variables := map[string]any{"after": cursor(t, bob)}
		connectRaw(t, bob)
		openEvents(http.MethodPost)(t, bob, newMessage, variables)
		openMultipart(multipartAccept)(t, bob, newMessage, variables)
		for method, headers := range map[string][]string{
			http.MethodPost: {"Accept: text/event-stream"}, http.MethodPut: nil,
		} {
			answer := request(t, bob, method, endpoint, parameters{Query: newMessage, Variables: variables}, headers...)
			if got := single(t, answer); answer.StatusCode != http.StatusTooManyRequests || got.code() != "RATE_LIMITED" {
				t.Errorf("%s is answered with %s and %s", method, answer.Status, got.code())
			}
		}
		s := dialRaw(t, endpoint)
		s.init(bob.Token)
		s.wantClose(1013)
	})
	t.Run("one byte of a message too many closes it with 1009", func(t *testing.T) {
		t.Parallel()
		ann := account(t, stack, "Ann").At(endpoint)
		s := connectRaw(t, ann)
		fits := `{"type":"ping","payload":{"a":"` + strings.Repeat("x", 4096-34) + `"}}`
		s.text(fits)
		s.want("pong", "")
		s.text(fits + " ")
		s.wantClose(1009)
	})
}

// large is the longest message that there can be, in bytes.
var large = strings.Repeat("🙂", 4000)

func TestAClientThatDoesNotReadIsEvictedAndResumesWithoutALoss(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{}))
	rdb := redisOf(t, stack)
	endpoint := startGraph(t, stack, "GRAPH_SOCKET_QUEUE_BYTES=65536", "GRAPH_SOCKET_WRITE_TIMEOUT=3s")
	const messages = 150 // 2.4 MB
	evicted := func(t *testing.T, live bool) {
		ann, bob := account(t, stack, "Ann").At(endpoint), account(t, stack, "Bob")
		user, _ := claimsOf(t, ann.Token)
		after := cursor(t, ann)
		var talking sync.WaitGroup
		talk := func() {
			for i := range messages {
				send(t, bob, ann, fmt.Sprint(i)+large[:len(large)-16])
			}
		}
		if !live {
			talk()
		}
		s := connectRaw(t, ann)
		_ = s.conn.SetReadBuffer(4 << 10)
		s.subscribe("1", newMessage, map[string]any{"after": after})
		eventually(t, "the subscription is there", func(ctx context.Context) (bool, error) {
			n, err := subscribers(ctx, rdb, user)
			return n == 1, err
		})
		if live {
			talking.Go(talk)
		}
		eventually(t, "the server gives it up", func(ctx context.Context) (bool, error) {
			n, err := subscribers(ctx, rdb, user)
			return n == 0, err
		})
		// It wakes up and reads what the network still has.
		var got []string
		for {
			m, end := s.receive()
			if end == nil {
				got = append(got, string(m.Payload))
				continue
			}
			// One that took nothing for the whole of the write timeout is cut off within a frame, so it cannot be told.
			if (live || end.err == nil) && (end.code != 1013 || !strings.Contains(end.reason, "resume")) {
				t.Errorf("after %d events the socket ends with %v", len(got), end)
			}
			break
		}
		talking.Wait()
		if len(got) >= messages {
			t.Fatalf("it was given %d events", len(got))
		}
		if len(got) > 0 {
			after = cursorOfEvent(t, got[len(got)-1])
		}
		resumed := connectRaw(t, ann)
		resumed.subscribe("1", newMessage, map[string]any{"after": after})
		for range messages - len(got) {
			got = append(got, string(resumed.want("next", "1").Payload))
		}
		for i, payload := range got {
			if want := fmt.Sprint(i) + "🙂"; !strings.HasPrefix(eventBody(json.RawMessage(payload)), want) {
				t.Fatalf("event %d is %.200s", i, payload)
			}
		}
	}
	t.Run("with 1013 when its queue is full of live events", func(t *testing.T) {
		t.Parallel()
		evicted(t, true)
	})
	t.Run("when it takes nothing of what it missed", func(t *testing.T) {
		t.Parallel()
		evicted(t, false)
	})
}
