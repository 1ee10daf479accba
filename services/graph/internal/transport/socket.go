package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/live"
	"chatapp.dev/services/graph/internal/ratelimit"
	"chatapp.dev/services/graph/internal/sendq"
)

// The close codes of the protocol, which are in the range that RFC 6455 leaves to applications.
const (
	closeBadRequest      = 4400
	closeUnauthorized    = 4401
	closeForbidden       = 4403
	closeSubprotocol     = 4406
	closeInitTimeout     = 4408
	closeSubscriberKnown = 4409
	closeTooManyInits    = 4429
)

const (
	// closeTimeout is how long a client may take to answer a close before the connection is cut.
	closeTimeout = 2 * time.Second
	// busyInterval is how often a client is pinged that is being sent something.
	busyInterval = 3 * time.Second
	// maxReason is the most bytes that the reason of a close may have.
	maxReason = 123
	// openMessages bounds what the operations under way of one connection keep in memory, in messages of the largest
	// size.
	openMessages = 4
)

// The parts of messages around what is different in each.
var (
	nextHead     = []byte(`,"type":"next","payload":`)
	messageTail  = []byte(`}`)
	ackMessage   = []byte(`{"type":"connection_ack"}`)
	pongMessage  = []byte(`{"type":"pong"}`)
	pongPayload  = []byte(`{"type":"pong","payload":`)
	completeTail = []byte(`,"type":"complete"}`)
	errorHead    = []byte(`,"type":"error","payload":`)
)

// socket is one WebSocket.
type socket struct {
	connections *Connections
	present     graphql.ErrorPresenterFunc
	exec        graphql.GraphExecutor
	conn        *websocket.Conn
	raw         net.Conn
	queue       *sendq.Queue

	// answered is when the client last answered a ping, in nanoseconds, and sent tells that it was sent something since
	// the last ping.
	answered atomic.Int64
	sent     atomic.Bool

	mu sync.Mutex
	// who is the caller once the client has introduced itself.
	who identity.Identity
	// introduced is set by a connection_init, and acknowledged when it was accepted.
	introduced, acknowledged bool
	operations               []*operation
	// kept is the size of the messages that asked for the operations.
	kept int
	// drained is set when the server stops, which may be during the handshake.
	drained bool
	// ending is set when a close was sent or received, after which the client has until cutAt to go.
	ending bool
	cutAt  time.Time

	opened time.Time
	// active is when the client last sent something, and idle since when it has had no operation under way.
	active, idle time.Time
	// pinged is when the last ping was sent, and awaiting is set until it is answered.
	pinged   time.Time
	awaiting bool
}

func newSocket(c *Connections, present graphql.ErrorPresenterFunc, exec graphql.GraphExecutor) *socket {
	now := time.Now()
	return &socket{connections: c, present: present, exec: exec, opened: now, active: now, idle: now, pinged: now}
}

// open takes the connection over from the HTTP server.
func (s *socket) open(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = conn
	// Not by whoever happens to send something, which may hold the lock that ending takes.
	s.queue = s.connections.pool.Open(conn, sendq.WebSocket, func(reason error) { go s.evict(reason) })
}

// begin is called when the handshake is done.
func (s *socket) begin(conn *websocket.Conn) {
	s.mu.Lock()
	s.conn = conn
	drained := s.drained
	s.mu.Unlock()
	if drained {
		s.drain()
	}
	conn.SetReadLimit(int64(s.connections.cfg.MessageBytes))
	conn.SetPingHandler(func(data string) error {
		s.queue.Push(sendq.Frame{Op: sendq.Pong, Body: []byte(data)})
		return nil
	})
	conn.SetPongHandler(func(string) error {
		s.answered.Store(time.Now().UnixNano())
		return nil
	})
	conn.SetCloseHandler(func(code int, _ string) error {
		s.closed(code)
		return nil
	})
}

// gone forgets the connection.
func (s *socket) gone() {
	s.stop()
	if s.queue != nil {
		s.queue.Close()
	}
	s.mu.Lock()
	user := s.who.UserID
	s.mu.Unlock()
	s.connections.leave(s, user)
}

// stop ends the operations, and is what every way of ending has in common.
func (s *socket) stop() {
	s.mu.Lock()
	operations := s.operations
	s.operations = nil
	for _, o := range operations {
		o.over = true
	}
	s.mu.Unlock()
	for _, o := range operations {
		o.stop()
	}
}

// end closes the connection with a code and a reason, after what is queued.
func (s *socket) end(code int, reason string) { s.close(code, reason, true) }

func (s *socket) close(code int, reason string, keep bool) {
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return
	}
	s.ending, s.cutAt = true, time.Now().Add(closeTimeout)
	s.queue.Finish(sendq.Frame{Op: sendq.Close, Body: websocket.FormatCloseMessage(code, clip(reason))}, keep, false)
	s.mu.Unlock()
	s.connections.metrics.closed(code)
	s.stop()
}

// clip cuts a text to what a close can carry.
func clip(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	reason = reason[:maxReason]
	for len(reason) > 0 && !utf8.ValidString(reason) {
		reason = reason[:len(reason)-1]
	}
	return reason
}

// closed is called when the client closes. If the server has not, it answers alike, after what is queued.
func (s *socket) closed(code int) {
	var answer []byte
	if code != websocket.CloseNoStatusReceived {
		answer = websocket.FormatCloseMessage(code, "")
	}
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		s.queue.Close()
		return
	}
	s.ending, s.cutAt = true, time.Now().Add(closeTimeout)
	s.queue.Finish(sendq.Frame{Op: sendq.Close, Body: answer}, true, true)
	s.mu.Unlock()
	s.connections.metrics.closed(code)
	s.stop()
}

// evict is called when the queue was given up.
func (s *socket) evict(reason error) {
	if errors.Is(reason, sendq.ErrBroken) {
		// There is nobody to tell; reading fails, too, and that ends it.
		return
	}
	s.close(websocket.CloseTryAgainLater, "too slow ("+reason.Error()+"); resume from the last cursor", false)
}

// drain implements connection.
func (s *socket) drain() {
	s.mu.Lock()
	s.drained = true
	begun := s.conn != nil
	s.mu.Unlock()
	if begun {
		s.end(websocket.CloseServiceRestart, "the server restarts")
	}
}

const reasonRevoked = "Forbidden: the session was signed out"

// revoke implements connection.
func (s *socket) revoke(session ids.ID) {
	s.mu.Lock()
	mine := s.acknowledged && s.who.SessionID == session
	s.mu.Unlock()
	if mine {
		// After what is queued, which was meant for the session while it stood.
		s.end(closeForbidden, reasonRevoked)
	}
}

// cut implements connection.
func (s *socket) cut() {
	s.mu.Lock()
	queue := s.queue
	s.mu.Unlock()
	if queue != nil {
		queue.Close()
	}
}

// watch implements connection.
func (s *socket) watch(now time.Time) {
	cfg := &s.connections.cfg
	s.mu.Lock()
	if s.conn == nil {
		s.mu.Unlock()
		return
	}
	var code int
	var reason string
	cut, ping := false, false
	switch {
	case s.ending:
		cut = now.After(s.cutAt)
	case !s.introduced && now.Sub(s.opened) >= cfg.InitTimeout:
		code, reason = closeInitTimeout, "Connection initialisation timeout"
	case s.acknowledged && !now.Before(s.who.ExpiresAt.Add(-expiryMargin)):
		code, reason = closeForbidden, "Forbidden: the access token has expired"
	case s.acknowledged && !s.connections.verifier.Standing(s.who):
		code, reason = closeForbidden, reasonRevoked
	case s.awaiting && s.answered.Load() < s.pinged.UnixNano() && now.Sub(s.pinged) >= cfg.PongTimeout:
		code, reason = websocket.CloseTryAgainLater, "no answer to a ping; resume from the last cursor"
	case cfg.IdleTimeout > 0 && len(s.operations) == 0 && now.Sub(s.idle) >= cfg.IdleTimeout:
		code, reason = websocket.CloseNormalClosure, "no operation for "+cfg.IdleTimeout.String()
	default:
		s.awaiting = s.awaiting && s.answered.Load() < s.pinged.UnixNano()
		// Whoever is being sent something is asked more often: it is how somebody who reads none of it is found while
		// the kernels still take it.
		quiet := now.Sub(time.Unix(0, max(s.answered.Load(), s.active.UnixNano())))
		ping = !s.awaiting && (quiet >= cfg.PingInterval || s.sent.Load() && now.Sub(s.pinged) >= busyInterval)
		if ping {
			s.sent.Store(false)
			s.pinged, s.awaiting = now, true
		}
	}
	s.mu.Unlock()
	switch {
	case cut:
		s.queue.Close()
	case code == websocket.CloseTryAgainLater:
		// Whoever does not answer pings reads nothing that is queued either, and will not answer a close.
		s.close(code, reason, false)
		s.mu.Lock()
		s.cutAt = now
		s.mu.Unlock()
		s.connections.metrics.evicted(errUnanswered)
	case code != 0:
		s.end(code, reason)
	case ping:
		s.queue.PushFirst(sendq.Frame{Op: sendq.Ping})
	}
}

// errUnanswered is why a client is evicted that does not answer pings.
var errUnanswered = errors.New("no answer to a ping")

// read reads what the client sends, until the connection is gone.
func (s *socket) read() {
	defer s.gone()
	for {
		kind, from, err := s.conn.NextReader()
		if err != nil {
			s.lost()
			return
		}
		raw, err := readMessage(from)
		s.mu.Lock()
		ending := s.ending
		s.active = time.Now()
		s.mu.Unlock()
		switch {
		case ending:
			// Only the client's own close is of interest.
		case err != nil:
			// NextReader says the same again.
		case kind != websocket.TextMessage:
			s.end(closeBadRequest, "Invalid message received: not text")
		default:
			// What this goroutine has on its stack once, it keeps for long: there is one for each connection, and it does
			// nothing but wait most of the time.
			received := make(chan struct{})
			go func() {
				defer close(received)
				s.receive(raw)
			}()
			<-received
		}
	}
}

// lost waits until the client has gone, or is cut off.
func (s *socket) lost() {
	s.mu.Lock()
	if !s.ending {
		s.ending, s.cutAt = true, time.Now().Add(closeTimeout)
		// If a frame broke the rules of WebSockets (1002) or announced too much (1009), the library has queued a close, which
		// the client is to see.
		s.queue.Finish(sendq.Frame{Op: sendq.Raw}, true, false)
	}
	s.mu.Unlock()
	s.stop()
	_, _ = io.Copy(io.Discard, s.raw)
}

// readMessage reads a message to its end.
func readMessage(from io.Reader) ([]byte, error) {
	// Most are short.
	raw := make([]byte, 0, readBuffer)
	for {
		if len(raw) == cap(raw) {
			raw = append(raw, 0)[:len(raw)]
		}
		n, err := from.Read(raw[len(raw):cap(raw)])
		raw = raw[:len(raw)+n]
		switch {
		case errors.Is(err, io.EOF):
			return raw, nil
		case err != nil:
			return nil, err
		}
	}
}

// receive does what a message asks for.
func (s *socket) receive(raw []byte) {
	m, err := parseMessage(raw)
	if err != nil {
		s.end(closeBadRequest, err.Error())
		return
	}
	switch m.kind {
	case typeInit:
		s.introduce(m.payload)
	case typePing:
		s.ping(m.payload)
	case typePong:
		s.answered.Store(time.Now().UnixNano())
	case typeSubscribe:
		s.subscribe(m, len(raw))
	case typeComplete:
		s.complete(m.id)
	}
}

// introduce accepts or refuses a connection_init.
func (s *socket) introduce(payload json.RawMessage) {
	s.mu.Lock()
	again := s.introduced
	s.introduced = true
	s.mu.Unlock()
	if again {
		s.end(closeTooManyInits, "Too many initialisation requests")
		return
	}
	header, _ := authorization(payload)
	who, ok := s.authenticate(header)
	if !ok {
		return
	}
	if !s.connections.claim(who.UserID) {
		s.end(websocket.CloseTryAgainLater, "too many connections of this user")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who, s.acknowledged = who, true
	s.queue.Push(sendq.Frame{Op: sendq.Text, Body: ackMessage})
}

// authorization returns the token that a payload brings, in the form of the header, and whether it means to bring one:
// what is no string is none that anybody could accept.
func authorization(payload json.RawMessage) (header string, brought bool) {
	fields, _ := members(payload)
	for _, name := range []string{"authorization", "Authorization"} {
		if value, ok := fields[name]; ok {
			isString(value, &header)
			return header, true
		}
	}
	return "", false
}

// authenticate returns whom a token stands for, and closes the connection when it is not valid.
func (s *socket) authenticate(header string) (identity.Identity, bool) {
	ctx, err := Authenticate(s.connections.ctx, s.connections.verifier, header)
	if err == nil {
		who, _ := identity.From(ctx)
		return who, true
	}
	presented := s.present(s.connections.ctx, err)
	if errs.KindOf(err) == errs.Unavailable {
		s.end(websocket.CloseTryAgainLater, "access tokens cannot be checked at the moment")
	} else {
		s.end(closeForbidden, "Forbidden: "+presented.Message)
	}
	return identity.Identity{}, false
}

// ping answers a ping of the protocol. It may bring a newer token, which is not sent back.
func (s *socket) ping(payload json.RawMessage) {
	if header, brought := authorization(payload); brought {
		// The pong says that the token was accepted, so there must be none for one that was not.
		if !s.renew(header) {
			return
		}
		payload = nil
	}
	if payload == nil {
		s.queue.Push(sendq.Frame{Op: sendq.Text, Body: pongMessage})
		return
	}
	s.queue.Push(sendq.Frame{Op: sendq.Text, Head: pongPayload, Body: payload, Tail: messageTail})
}

// renew goes on with a newer token, and says whether the connection does.
func (s *socket) renew(header string) bool {
	s.mu.Lock()
	acknowledged, user := s.acknowledged, s.who.UserID
	s.mu.Unlock()
	if !acknowledged {
		// Nobody has been introduced whose token it could renew.
		return true
	}
	who, ok := s.authenticate(header)
	if !ok {
		return false
	}
	if who.UserID != user {
		s.end(closeForbidden, "Forbidden: the token is another user's")
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who = who
	for _, o := range s.operations {
		if o.subscriber != nil {
			o.subscriber.Renew(who)
		}
	}
	return true
}

// subscribe begins an operation.
func (s *socket) subscribe(m message, size int) {
	if code, reason := s.begins(m, size); code != 0 {
		s.end(code, reason)
	}
}

// begins begins an operation, or returns how the connection must be closed.
func (s *socket) begins(m message, size int) (code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &operation{socket: s, key: m.id, id: live.EncodeString(m.id), size: size}
	switch {
	case s.ending:
	case !s.acknowledged:
		return closeUnauthorized, "Unauthorized"
	case s.find(m.id) != nil:
		return closeSubscriberKnown, "Subscriber for " + m.id + " already exists"
	case len(s.operations) >= s.connections.cfg.Operations:
		o.refuse("at most " + strconv.Itoa(s.connections.cfg.Operations) + " operations may be under way on a connection")
	case len(s.operations) > 0 && s.kept+size > openMessages*s.connections.cfg.MessageBytes:
		o.refuse("the operations under way on this connection are too large together")
	default:
		s.operations = append(s.operations, o)
		s.kept += size
		ctx, cancel := context.WithCancel(s.connections.ctx)
		o.cancel = cancel
		go o.run(ctx, cancel, m.operation, s.who)
	}
	return 0, ""
}

// find returns the operation with a name. There are few, and a map would be most of what they cost. It needs s.mu.
func (s *socket) find(id string) *operation {
	for _, o := range s.operations {
		if o.key == id {
			return o
		}
	}
	return nil
}

// complete ends an operation that the client wants no more of. There may be none, since both sides can end it.
func (s *socket) complete(id string) {
	s.mu.Lock()
	o := s.find(id)
	if o != nil {
		o.forget()
	}
	s.mu.Unlock()
	if o != nil {
		o.stop()
	}
}

// operation is one query, mutation or subscription of a client. It implements live.Sink.
type operation struct {
	socket *socket
	// key is the client's name for the operation, and id the JSON text of it.
	key  string
	id   []byte
	size int

	// The rest is guarded by socket.mu.

	// cancel gives up what is being executed. A subscription that is established has none: it is closed.
	cancel context.CancelFunc
	// head comes before the payload of each response.
	head       []byte
	subscriber *live.Subscriber
	// over is set when nothing more may be sent.
	over bool
}

var _ live.Sink = (*operation)(nil)

// run executes the operation. For a subscription it returns when that is up to date and goes on by itself.
func (o *operation) run(
	ctx context.Context, cancel context.CancelFunc, params *graphql.RawParams, who identity.Identity,
) {
	defer cancel()
	s := o.socket
	now := graphql.Now()
	params.ReadTime = graphql.TraceTiming{Start: now, End: now}
	ctx = graphql.StartOperationTrace(identity.With(ctx, who))
	defer func() {
		if p := recover(); p != nil {
			ctx, span := tracer.Start(ctx, "panicked")
			defer span.End()
			o.End(gqlerror.List{s.present(ctx, panicked(p))})
		}
	}()
	if retryAfter, ok := s.connections.limiter.Allow(ctx, ratelimit.Caller{User: who.UserID}); !ok {
		ctx, span := tracer.Start(ctx, "refused")
		defer span.End()
		o.End(gqlerror.List{s.present(ctx, ratelimit.Error(retryAfter))})
		return
	}
	op, refused := s.exec.CreateOperationContext(ctx, params)
	if refused != nil {
		// The errors of what never becomes an operation have a trace as well.
		ctx, span := tracer.Start(ctx, "refused")
		defer span.End()
		o.End(s.exec.DispatchError(graphql.WithOperationContext(ctx, op), refused).Errors)
		return
	}
	if op.Operation.Operation != ast.Subscription {
		responses, ctx := s.exec.DispatchOperation(ctx, op)
		o.finish(responses(ctx))
		return
	}
	ctx, span := tracer.Start(ctx, "subscribe")
	subscriber, err := s.connections.fanout.Subscribe(ctx, s.exec, op, who, o)
	if err != nil {
		o.End(gqlerror.List{s.present(ctx, err)})
		span.End()
		return
	}
	span.End()
	// What goes on does so without the context, and most connections are such a subscription.
	cancel()
	s.mu.Lock()
	over := o.over
	o.subscriber, o.cancel = subscriber, nil
	if s.who.Token != who.Token {
		subscriber.Renew(s.who)
	}
	s.mu.Unlock()
	if over {
		subscriber.Close()
		return
	}
	subscriber.Deliver()
}

// panicked returns the error of an operation that panicked. The libraries that read a document are not ours, and what
// one client sends must not end everybody's connections.
func panicked(p any) error {
	return errs.Wrap(errs.Internal, fmt.Errorf("panic: %v\n%s", p, debug.Stack()), "the operation panicked")
}

// stop ends what goes on in the operation's name.
func (o *operation) stop() {
	o.socket.mu.Lock()
	cancel, subscriber := o.cancel, o.subscriber
	o.socket.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if subscriber != nil {
		subscriber.Close()
	}
}

// forget makes the operation's id free for another. It needs socket.mu.
func (o *operation) forget() {
	o.over = true
	s := o.socket
	if i := slices.Index(s.operations, o); i >= 0 {
		s.operations = slices.Delete(s.operations, i, i+1)
		s.kept -= o.size
		s.idle = time.Now()
	}
}

// Next implements live.Sink.
func (o *operation) Next(response []byte) {
	s := o.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.over {
		return
	}
	if o.head == nil {
		o.head = o.message(nextHead, nil, nil).Head
	}
	s.queue.Push(sendq.Frame{Op: sendq.Text, Head: o.head, Body: response, Tail: messageTail})
	s.sent.Store(true)
}

// Room implements live.Sink.
func (o *operation) Room(ctx context.Context) error { return o.socket.queue.Room(ctx) }

// End implements live.Sink: an error message ends the operation.
func (o *operation) End(list gqlerror.List) {
	o.last(o.message(errorHead, live.EncodeErrors(list), messageTail))
}

// finish sends the one response of a query or a mutation.
func (o *operation) finish(response *graphql.Response) {
	if response == nil {
		// Only the end of the operation's context leads here.
		return
	}
	o.last(o.message(nextHead, live.Encode(response), messageTail), o.message(completeTail, nil, nil))
}

// last sends the messages that end the operation. They are pushed at once, since a long one must not leave too little
// room for the next.
func (o *operation) last(messages ...sendq.Frame) {
	s := o.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.over {
		return
	}
	o.forget()
	s.queue.Push(messages...)
	s.sent.Store(true)
}

// refuse sends an error for an operation that never began.
func (o *operation) refuse(reason string) {
	ctx, span := tracer.Start(o.socket.connections.ctx, "refused")
	defer span.End()
	presented := gqlerror.List{o.socket.present(ctx, errs.New(errs.RateLimited, reason))}
	o.socket.queue.Push(o.message(errorHead, live.EncodeErrors(presented), messageTail))
	o.socket.sent.Store(true)
}

// message returns a message of the operation: its id, and what follows.
func (o *operation) message(head, payload, tail []byte) sendq.Frame {
	whole := append([]byte(`{"id":`), o.id...)
	return sendq.Frame{Op: sendq.Text, Head: append(whole, head...), Body: payload, Tail: tail}
}
