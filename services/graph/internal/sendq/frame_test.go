package sendq

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// TestWebSocketFramesAreWhatAClientReads has another implementation read them, at the sizes where their heads change.
func TestWebSocketFramesAreWhatAClientReads(t *testing.T) {
	t.Parallel()
	p, _ := start(t, generous)
	sizes := []int{0, 1, 124, 125, 126, 127, 1000, 65534, 65535, 65536, 65537, 1 << 20}
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = 'a' + byte(rand.N(26))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upgrader := websocket.Upgrader{}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		q := p.Open(conn.NetConn(), WebSocket, func(error) {})
		for _, size := range sizes {
			// In three parts, some of them empty.
			a, b := rand.N(size+1), rand.N(size+1)
			a, b = min(a, b), max(a, b)
			q.Push(Frame{Op: Text, Head: content[:a], Body: content[a:b], Tail: content[b:size]})
		}
		q.Push(Frame{Op: Ping, Body: []byte("ping")})
		q.Push(Frame{Op: Pong})
		// An unmasked frame of one byte, as it is.
		q.Push(Frame{Op: Raw, Head: []byte{0x81}, Body: []byte{1}, Tail: []byte("x")})
		q.Finish(Frame{Op: Close, Body: websocket.FormatCloseMessage(4400, strings.Repeat("r", 123))}, true, false)
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				break
			}
		}
		q.Close()
	}))
	defer server.Close()
	conn, answer, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	defer conn.Close()
	var control []string
	conn.SetPingHandler(func(data string) error { control = append(control, "ping "+data); return nil })
	conn.SetPongHandler(func(data string) error { control = append(control, "pong "+data); return nil })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for _, size := range sizes {
		kind, got, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if kind != websocket.TextMessage || !bytes.Equal(got, content[:size]) {
			t.Errorf("read %d bytes of kind %d, want %d", len(got), kind, size)
		}
	}
	if kind, got, err := conn.ReadMessage(); err != nil || kind != websocket.TextMessage || string(got) != "x" {
		t.Errorf("read %q of kind %d, %v", got, kind, err)
	}
	if got := strings.Join(control, ", "); got != "ping ping, pong " {
		t.Errorf("control frames: %s", got)
	}
	_, _, err = conn.ReadMessage()
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != 4400 || closed.Text != strings.Repeat("r", 123) {
		t.Errorf("closed with %v", err)
	}
}
