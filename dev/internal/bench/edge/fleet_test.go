package edge

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// wall is a server that everybody is subscribed to who has said hello.
type wall struct {
	http  *httptest.Server
	pongs chan string // A line for each answer to a ping.

	mu    sync.Mutex
	conns []*websocket.Conn
}

func newWall(t *testing.T) *wall {
	w := &wall{pongs: make(chan string, 100)}
	upgrader := websocket.Upgrader{Subprotocols: []string{"graphql-transport-ws"}}
	w.http = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(rw, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.SetPongHandler(func(data string) error {
			w.pongs <- "WebSocket " + data
			return nil
		})
		for {
			_, message, err := conn.ReadMessage()
			if err != nil {
				return
			}
			switch text := string(message); {
			case strings.Contains(text, `"connection_init"`):
				// One before the acknowledgement, and one that comes along with it.
				w.write(t, conn, `{"type":"ping"}`)
				w.write(t, conn, `{"type":"connection_ack"}`)
				w.write(t, conn, `{"type":"ping"}`)
			case strings.Contains(text, `"subscribe"`):
				w.mu.Lock()
				w.conns = append(w.conns, conn)
				w.mu.Unlock()
			case text == `{"type":"pong"}`:
				w.pongs <- "protocol"
			default:
				t.Errorf("a client sends %s", text)
			}
		}
	}))
	t.Cleanup(w.http.Close)
	return w
}

func (w *wall) write(t *testing.T, conn *websocket.Conn, message string) {
	if err := conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		t.Error(err)
	}
}

// publish sends an event to everybody.
func (w *wall) publish(number int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		message := fmt.Sprintf(`{"id":"1","type":"next","payload":{"body":"%s"}}`, body(number))
		if err := conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
			return err
		}
	}
	return nil
}

func greetWall(int) hello { return hello{init: `{}`, subscribe: `{}`} }

// openFleet connects so many clients to the wall.
func openFleet(t *testing.T, w *wall, clients int) *fleet {
	t.Helper()
	f, err := newFleet(w.http.Listener.Addr().String(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	if err := f.open(t.Context(), everybody(clients), greetWall); err != nil {
		t.Fatal(err)
	}
	err = f.settle(t.Context(), func(_ context.Context, _, _, number int) error { return w.publish(number) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFleetCountsEveryDelivery(t *testing.T) {
	t.Parallel()
	const clients, events = 50, 200
	w := newWall(t)
	f := openFleet(t, w, clients)
	before := f.record()
	for range events {
		number, e := f.announce()
		if err := w.publish(number); err != nil {
			t.Fatal(err)
		}
		if err := f.await(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	// An event of somebody else is none of this fleet's business.
	if err := w.publish(999); err != nil {
		t.Fatal(err)
	}
	after, took := f.recorded()
	if after-before != clients*events || len(took) != clients*events {
		t.Errorf("%d deliveries were counted and %d timed, want %d", after-before, len(took), clients*events)
	}
	if took[0] < 0 || took[len(took)-1] > time.Minute {
		t.Errorf("deliveries took %v to %v", took[0], took[len(took)-1])
	}
}

func TestFleetAnswersPings(t *testing.T) {
	t.Parallel()
	w := newWall(t)
	openFleet(t, w, 1)
	w.mu.Lock()
	err := w.conns[0].WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(time.Minute))
	w.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"protocol", "protocol", "WebSocket there?"} {
		select {
		case got := <-w.pongs:
			if got != want {
				t.Errorf("the answer is %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("there is no answer %q", want)
		}
	}
}

func TestFleetBreaksWhenAServerBreaksItsWord(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do   func(w *wall, conn *websocket.Conn, number int) error
		want string
	}{
		"a close": {
			func(_ *wall, conn *websocket.Conn, _ int) error {
				return conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1013, "too slow"), time.Now().Add(time.Minute))
			},
			"1013 too slow",
		},
		"a cut":    {func(_ *wall, conn *websocket.Conn, _ int) error { return conn.Close() }, "ended a connection"},
		"an error": {sendText(`{"id":"1","type":"error","payload":[]}`), `"type":"error"`},
		"a double": {
			func(w *wall, _ *websocket.Conn, number int) error {
				if err := w.publish(number); err != nil {
					return err
				}
				return w.publish(number)
			},
			"more often than there are clients",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWall(t)
			f := openFleet(t, w, 2)
			number, _ := f.announce()
			if err := tt.do(w, w.conns[1], number); err != nil {
				t.Fatal(err)
			}
			_, e := f.announce()
			if err := f.await(t.Context(), e); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the fleet ends with %v, want %q", err, tt.want)
			}
		})
	}
}

func sendText(message string) func(*wall, *websocket.Conn, int) error {
	return func(_ *wall, conn *websocket.Conn, _ int) error {
		return conn.WriteMessage(websocket.TextMessage, []byte(message))
	}
}

func TestFleetSaysWhyItIsRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	f, err := newFleet(server.Listener.Addr().String(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if err := f.open(t.Context(), everybody(3), greetWall); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("clients are let in to what is not there: %v", err)
	}
}

func TestEvictionsAreSeenFromTheServersSide(t *testing.T) {
	t.Parallel()
	w := newWall(t)
	f := openFleet(t, w, 10)
	watch := watchEvictions(f.address, f.stall())
	defer watch.end()
	if watch.over() {
		t.Fatal("clients are gone that nobody has closed")
	}
	for _, conn := range w.conns[:9] {
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	gone := func() int {
		watch.mu.Lock()
		defer watch.mu.Unlock()
		return len(watch.after)
	}
	for end := time.Now().Add(time.Minute); gone() < 9; time.Sleep(lookEvery) {
		if time.Now().After(end) {
			t.Fatalf("%d of 9 are seen to be gone", gone())
		}
	}
	s := Stalled{Stalled: 10, Within: 60}
	if err := watch.count(&s); err != nil || s.Evicted != 9 || s.Last != 0 {
		t.Errorf("9 of 10 that are closed are reported as %+v, %v", s, err)
	}
}
