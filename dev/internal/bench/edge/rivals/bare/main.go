// Command bare broadcasts over WebSockets with gorilla/websocket and nothing else: no GraphQL, no users, no queues. Each
// event from Redis becomes a frame once, and one write a connection; a goroutine a connection reads. It tells what the
// machine's kernel and Go's runtime take in any case, and ChatApp's edge is measured beside it. A client that does not
// read holds everybody up.
//
// Its arguments are the address of Redis, and "joined" if the frames of all events that wait shall be written together.
// It writes the address on which it serves to its standard output.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) < 2 {
		return errors.New("want the address of Redis")
	}
	joined := len(os.Args) > 2 && os.Args[2] == "joined"
	rdb := redis.NewClient(&redis.Options{Addr: os.Args[1]})
	defer rdb.Close()
	subscription := rdb.Subscribe(ctx, "bare")
	if _, err := subscription.Receive(ctx); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &server{conns: make(map[*websocket.Conn]struct{})}
	go func() {
		received := subscription.Channel()
		for message := range received {
			if joined {
				s.broadcastJoined(message, received)
				continue
			}
			if err := s.broadcast(message); err != nil {
				fmt.Fprintln(os.Stderr, "bare:", err)
				os.Exit(1)
			}
		}
	}()
	http.HandleFunc("/graphql", s.accept)
	fmt.Println(listener.Addr())
	return (&http.Server{ReadHeaderTimeout: time.Minute}).Serve(listener)
}

type server struct {
	mu    sync.Mutex
	conns map[*websocket.Conn]struct{}
}

var upgrader = websocket.Upgrader{
	Subprotocols:    []string{"graphql-transport-ws"},
	ReadBufferSize:  1 << 10,
	WriteBufferPool: &sync.Pool{},
}

func (s *server) accept(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	// What net/http keeps for the request is freed.
	go s.read(conn)
}

// read answers pings and closes, and notices the end.
func (s *server) read(conn *websocket.Conn) {
	for {
		if _, _, err := conn.NextReader(); err != nil {
			break
		}
	}
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	_ = conn.Close()
}

// broadcast writes an event to everybody.
func (s *server) broadcast(message *redis.Message) error {
	frame, err := websocket.NewPreparedMessage(websocket.TextMessage, []byte(message.Payload))
	if err != nil {
		return fmt.Errorf("prepare a frame: %w", err)
	}
	for _, conn := range s.all() {
		// The reader notices what has ended.
		_ = conn.WritePreparedMessage(frame)
	}
	return nil
}

// broadcastJoined writes an event and all that wait behind it to everybody, past gorilla, which writes frames one by one.
// Nothing else writes but the answers to pings, which nobody sends here.
func (s *server) broadcastJoined(message *redis.Message, waiting <-chan *redis.Message) {
	frames := appendFrame(nil, message.Payload)
	for len(waiting) > 0 {
		frames = appendFrame(frames, (<-waiting).Payload)
	}
	for _, conn := range s.all() {
		_, _ = conn.NetConn().Write(frames)
	}
}

func (s *server) all() []*websocket.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

// appendFrame appends a text frame, as a server sends it. Payloads are shorter than 64 KiB.
func appendFrame(frames []byte, payload string) []byte {
	const finalText, len16 = 0x81, 126
	if len(payload) < len16 {
		frames = append(frames, finalText, byte(len(payload)))
	} else {
		frames = append(frames, finalText, len16, byte(len(payload)>>8), byte(len(payload)))
	}
	return append(frames, payload...)
}
