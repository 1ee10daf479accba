package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Event is what a subscription yields.
type Event struct {
	Cursor  string
	Message Message
	// At is when it arrived.
	At time.Time
}

const (
	// subprotocol is the one WebSocket protocol that the client speaks.
	subprotocol = "graphql-transport-ws"
	// ackTimeout bounds the handshake.
	ackTimeout = 10 * time.Second
	// writeTimeout bounds the writing of a frame.
	writeTimeout = 5 * time.Second
	// eventBuffer is how many events wait for the reader of a subscription before the socket is no longer read.
	eventBuffer = 256
)

// frame is a message of the protocol.
type frame struct {
	ID      string          `json:"id,omitempty"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

// CloseError says that the server closed the socket.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("the server closed the socket: %d %s", e.Code, e.Reason)
}

// Socket is a WebSocket connection that has been acknowledged. Several subscriptions can share it.
type Socket struct {
	conn *websocket.Conn
	done chan struct{}

	writing sync.Mutex // Held to write a frame.

	mu     sync.Mutex
	nextID int
	open   map[string]*Subscription
	err    error // Why the socket ended; set before done is closed.
}

// Connect opens a socket and waits for the server's acknowledgement. ctx bounds the opening only.
func (c *Client) Connect(ctx context.Context) (*Socket, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	dialer := websocket.Dialer{
		NetDialContext:   (&net.Dialer{Timeout: dialTimeout}).DialContext,
		HandshakeTimeout: ackTimeout,
		Subprotocols:     []string{subprotocol},
	}
	conn, res, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(c.endpoint, "http"), http.Header{})
	if err != nil {
		if res != nil {
			_ = res.Body.Close()
			return nil, fmt.Errorf("open socket: %w (HTTP %d)", err, res.StatusCode)
		}
		return nil, fmt.Errorf("open socket: %w", err)
	}
	s := &Socket{conn: conn, done: make(chan struct{}), open: map[string]*Subscription{}}
	if err := s.handshake(ctx, c.Token); err != nil {
		_ = conn.Close()
		return nil, err
	}
	go s.read()
	return s, nil
}

// handshake is connection_init and connection_ack.
func (s *Socket) handshake(ctx context.Context, token string) error {
	if s.conn.Subprotocol() != subprotocol {
		return broken("the server chose the subprotocol %q", s.conn.Subprotocol())
	}
	payload := map[string]string{}
	if token != "" {
		payload["authorization"] = "Bearer " + token
	}
	raw, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("encode connection_init: %w", err)
	}
	if err := s.write(frame{Type: "connection_init", Payload: raw}); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("await connection_ack: %w", err)
	}
	for {
		f, err := s.receive()
		if err != nil {
			return fmt.Errorf("await connection_ack: %w", err)
		}
		switch f.Type {
		case "connection_ack":
			return s.conn.SetReadDeadline(time.Time{})
		case "ping":
			if err := s.write(frame{Type: "pong"}); err != nil {
				return err
			}
		default:
			return broken("a frame of type %q before connection_ack", f.Type)
		}
	}
}

func (s *Socket) write(f frame) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if err := s.conn.WriteJSON(f); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

func (s *Socket) receive() (frame, error) {
	kind, raw, err := s.conn.ReadMessage()
	if err != nil {
		var closed *websocket.CloseError
		if errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure {
			return frame{}, &CloseError{Code: closed.Code, Reason: closed.Text}
		}
		return frame{}, fmt.Errorf("read frame: %w", err)
	}
	var f frame
	if kind != websocket.TextMessage {
		return frame{}, broken("a binary frame")
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return frame{}, broken("a frame that is no JSON object: %.200s", raw)
	}
	return f, nil
}

// read hands frames to their subscriptions until the socket ends.
func (s *Socket) read() {
	err := s.dispatch()
	_ = s.conn.Close()
	s.mu.Lock()
	s.err = err
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for _, sub := range open {
		sub.end(err)
	}
	close(s.done)
}

func (s *Socket) dispatch() error {
	for {
		f, err := s.receive()
		if err != nil {
			return err
		}
		switch f.Type {
		case "ping":
			if err := s.write(frame{Type: "pong", Payload: f.Payload}); err != nil {
				return err
			}
			continue
		case "pong":
			continue
		}
		s.mu.Lock()
		sub, ended := s.open[f.ID], f.Type == "error" || f.Type == "complete"
		if ended {
			delete(s.open, f.ID)
		}
		s.mu.Unlock()
		if sub == nil {
			// Frames cross: a subscription that was just closed may still get some.
			continue
		}
		switch f.Type {
		case "next":
			if err := sub.next(f.Payload); err != nil {
				return err
			}
		case "error":
			var list []ResponseError
			if err := json.Unmarshal(f.Payload, &list); err != nil || len(list) == 0 {
				return broken("an error frame without a list of errors: %.200s", f.Payload)
			}
			sub.end(&Errors{List: list})
		case "complete":
			sub.end(ErrCompleted)
		default:
			return broken("a frame of type %q", f.Type)
		}
	}
}

// Done returns a channel that is closed when the socket has ended.
func (s *Socket) Done() <-chan struct{} { return s.done }

// Err returns why the socket ended, after it has.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the socket as a client does that leaves.
func (s *Socket) Close() {
	s.writing.Lock()
	_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
		time.Now().Add(writeTimeout))
	s.writing.Unlock()
	_ = s.conn.Close()
	s.drain()
}

// Cut ends the socket as a network does that breaks: the server gets a reset, and not a word of farewell.
func (s *Socket) Cut() {
	if tcp, ok := s.conn.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = s.conn.Close()
	s.drain()
}

// drain waits for the reading goroutine, which may be waiting for somebody to take an event.
func (s *Socket) drain() {
	s.mu.Lock()
	for _, sub := range s.open {
		sub.abandon()
	}
	s.mu.Unlock()
	<-s.done
}

// ErrCompleted says that the server completed a subscription, which newMessage promises never to do.
var ErrCompleted error = &ContractError{What: "the subscription was completed without an error"}

// ErrClosed says that the subscription was closed on this side.
var ErrClosed = errors.New("the subscription was closed here")

// Subscription is a running newMessage subscription.
type Subscription struct {
	socket    *Socket
	id        string
	events    chan Event
	abandoned chan struct{}
	once      sync.Once

	mu  sync.Mutex // Held to send on events or to close it.
	err error      // Set before events is closed.
}

const subscribeQuery = `subscription NewMessage($after: Cursor) { newMessage(after: $after) {
	cursor message { ` + messageFields + ` } } }`

// Subscribe starts a newMessage subscription after a cursor, or from now on when it is empty. The protocol has no
// acknowledgement of it: errors such as CURSOR_INVALID end the subscription.
func (s *Socket) Subscribe(after string) (*Subscription, error) {
	payload, err := json.Marshal(request{Query: subscribeQuery, Variables: map[string]any{"after": orNull(after)}})
	if err != nil {
		return nil, fmt.Errorf("encode subscribe: %w", err)
	}
	sub := &Subscription{socket: s, events: make(chan Event, eventBuffer), abandoned: make(chan struct{})}
	s.mu.Lock()
	if s.open == nil {
		err := s.err
		s.mu.Unlock()
		return nil, err
	}
	s.nextID++
	sub.id = fmt.Sprint(s.nextID)
	s.open[sub.id] = sub
	s.mu.Unlock()
	if err := s.write(frame{ID: sub.id, Type: "subscribe", Payload: payload}); err != nil {
		s.mu.Lock()
		delete(s.open, sub.id)
		s.mu.Unlock()
		return nil, err
	}
	return sub, nil
}

// Subscribe opens a socket for one subscription.
func (c *Client) Subscribe(ctx context.Context, after string) (*Subscription, error) {
	socket, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	sub, err := socket.Subscribe(after)
	if err != nil {
		socket.Close()
		return nil, err
	}
	return sub, nil
}

// Events returns the events; the channel is closed when the subscription ends.
func (s *Subscription) Events() <-chan Event { return s.events }

// Socket returns the connection that carries the subscription.
func (s *Subscription) Socket() *Socket { return s.socket }

// Err returns why the subscription ended, after Events is closed.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Complete ends the subscription, and leaves the socket open.
func (s *Subscription) Complete() error {
	s.socket.mu.Lock()
	_, open := s.socket.open[s.id]
	delete(s.socket.open, s.id)
	s.socket.mu.Unlock()
	if !open {
		return nil
	}
	s.abandon()
	err := s.socket.write(frame{ID: s.id, Type: "complete"})
	s.end(ErrClosed)
	return err
}

// next hands an event over.
func (s *Subscription) next(payload json.RawMessage) error {
	var data struct {
		NewMessage *struct {
			Cursor  string  `json:"cursor"`
			Message Message `json:"message"`
		} `json:"newMessage"`
	}
	if err := decode(0, payload, &data); err != nil {
		return err
	}
	if data.NewMessage == nil || data.NewMessage.Cursor == "" {
		return broken("an event without a cursor: %.200s", payload)
	}
	event := Event{Cursor: data.NewMessage.Cursor, Message: data.NewMessage.Message, At: time.Now()}
	if err := event.Message.finish(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	select {
	case s.events <- event:
	case <-s.abandoned:
	}
	return nil
}

// abandon says that nobody takes events any more.
func (s *Subscription) abandon() { s.once.Do(func() { close(s.abandoned) }) }

func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	close(s.events)
}
