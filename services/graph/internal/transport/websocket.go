package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"go.opentelemetry.io/otel"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/services/graph/internal/apierr"
)

var tracer = otel.Tracer("chatapp.dev/services/graph")

const (
	subprotocol = "graphql-transport-ws"

	// maxMessage is the most bytes that a client may send at once.
	maxMessage = 256 << 10
	// maxOperations is how many operations a connection may have under way.
	maxOperations = 100
	// initTimeout is how long a client may take to say who it is.
	initTimeout = 10 * time.Second
	// pingInterval is how often a client is asked whether it is there. After two intervals without an answer it is
	// not. Proxies commonly cut what is silent for a minute.
	pingInterval = 20 * time.Second
	// writeTimeout is how long a client may take to take what it is sent.
	writeTimeout = 10 * time.Second
	// closeTimeout is how long a client may take to answer a close before the connection is cut.
	closeTimeout = 2 * time.Second
)

// The close codes that RFC 6455 leaves to applications are those of the protocol's reference implementation.
const (
	closeBadRequest = 4400
	closeForbidden  = 4403
	closeInitLate   = 4408
)

// WebSocket answers operations of every kind on a WebSocket. It wraps gqlgen's own transport.
type WebSocket struct {
	http     HTTP
	verifier *identity.Verifier
	origins  Origins
	log      *slog.Logger
	upgrader websocket.Upgrader
	stock    transport.Websocket

	mu      sync.Mutex
	closing bool
	sockets map[*socket]struct{}
	open    sync.WaitGroup
}

var _ graphql.Transport = (*WebSocket)(nil)

// NewWebSocket returns a transport for callers whom the verifier knows and for pages of the origins.
func NewWebSocket(
	verifier *identity.Verifier, origins Origins, present graphql.ErrorPresenterFunc, log *slog.Logger,
) *WebSocket {
	t := &WebSocket{
		http:     HTTP{Present: present},
		verifier: verifier,
		origins:  origins,
		log:      log,
		sockets:  make(map[*socket]struct{}),
	}
	t.upgrader = websocket.Upgrader{
		Subprotocols:     []string{subprotocol},
		HandshakeTimeout: writeTimeout,
		ReadBufferSize:   1 << 10,
		WriteBufferSize:  4 << 10,
		WriteBufferPool:  &sync.Pool{},
		// Do looks at the origin before it upgrades.
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(w http.ResponseWriter, r *http.Request, status int, reason error) {
			t.http.Reject(w, r, status, errs.Wrap(errs.Invalid, reason, "this is no WebSocket handshake"))
		},
	}
	limit := int64(maxMessage)
	t.stock = transport.Websocket{
		Implementation:   upgraded{},
		InitFunc:         t.init,
		InitTimeout:      initTimeout,
		PingPongInterval: pingInterval,
		PayloadReadLimit: &limit,
	}
	return t
}

// Supports implements graphql.Transport.
func (t *WebSocket) Supports(r *http.Request) bool { return IsUpgrade(r) }

// Do implements graphql.Transport. It returns when the connection has ended.
func (t *WebSocket) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if !t.origins.AllowRequest(r) {
		t.http.Reject(w, r, http.StatusForbidden, errs.New(errs.Forbidden, "pages of this origin may not connect"))
		return
	}
	if !slices.Contains(websocket.Subprotocols(r), subprotocol) {
		t.http.Reject(w, r, http.StatusBadRequest, errs.New(errs.Invalid, "the subprotocol must be "+subprotocol))
		return
	}
	s := &socket{}
	if !t.enter(s) {
		t.http.Reject(w, r, http.StatusServiceUnavailable, errs.New(errs.Unavailable, "the server restarts; connect again"))
		return
	}
	defer t.leave(s)
	conn, err := t.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	s.connect(conn)
	defer s.finish()
	r = r.WithContext(context.WithValue(r.Context(), socketKey{}, s))
	t.stock.Do(w, r, socketExecutor{GraphExecutor: exec, socket: s})
}

// Shutdown closes every connection, so that the clients connect again elsewhere, and waits for the connections to end,
// at most until ctx does. New ones are refused from now on.
func (t *WebSocket) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	t.closing = true
	for s := range t.sockets {
		// One that does not take the message keeps only itself waiting.
		go s.end(websocket.CloseServiceRestart, "the server restarts")
	}
	t.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		t.open.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *WebSocket) enter(s *socket) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return false
	}
	t.sockets[s] = struct{}{}
	t.open.Add(1)
	return true
}

func (t *WebSocket) leave(s *socket) {
	t.mu.Lock()
	delete(t.sockets, s)
	t.mu.Unlock()
	t.open.Done()
}

// init accepts or refuses a connection_init.
func (t *WebSocket) init(
	ctx context.Context, payload transport.InitPayload,
) (context.Context, *transport.InitPayload, error) {
	s := socketOf(ctx)
	authenticated, err := Authenticate(ctx, t.verifier, payload.Authorization())
	if err != nil {
		if errs.KindOf(err) == errs.Unavailable {
			t.log.WarnContext(ctx, "tokens cannot be checked", "err", err)
			s.end(websocket.CloseTryAgainLater, "access tokens cannot be checked at the moment")
		} else {
			s.end(closeForbidden, "Forbidden")
		}
		return ctx, nil, err
	}
	who, err := identity.Must(authenticated)
	if err != nil {
		return ctx, nil, err
	}
	s.endAt(who.ExpiresAt)
	return authenticated, nil, nil
}

// socketExecutor is gqlgen's executor as one connection sees it.
type socketExecutor struct {
	graphql.GraphExecutor
	socket *socket
}

// CreateOperationContext implements graphql.GraphExecutor, and counts the operations that are under way.
func (e socketExecutor) CreateOperationContext(
	ctx context.Context, params *graphql.RawParams,
) (*graphql.OperationContext, gqlerror.List) {
	operation, refused := e.GraphExecutor.CreateOperationContext(ctx, params)
	if refused != nil {
		return operation, refused
	}
	if e.socket.operations.Add(1) > maxOperations {
		e.socket.operations.Add(-1)
		return operation, gqlerror.List{
			apierr.Refuse(errs.New(errs.RateLimited, "too many operations are under way on this connection")),
		}
	}
	return operation, nil
}

// DispatchError implements graphql.GraphExecutor, with a trace for what never becomes an operation.
func (e socketExecutor) DispatchError(ctx context.Context, list gqlerror.List) *graphql.Response {
	ctx, span := tracer.Start(ctx, "refused")
	defer span.End()
	return e.GraphExecutor.DispatchError(ctx, list)
}

// DispatchOperation implements graphql.GraphExecutor. A response without data is what ends an operation, and is sent as
// the protocol's error message.
func (e socketExecutor) DispatchOperation(
	ctx context.Context, operation *graphql.OperationContext,
) (graphql.ResponseHandler, context.Context) {
	// The transport ends the context of each operation that it dispatches.
	context.AfterFunc(ctx, func() { e.socket.operations.Add(-1) })
	responses, ctx := e.GraphExecutor.DispatchOperation(ctx, operation)
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if response == nil || response.Data != nil || len(response.Errors) == 0 {
			return response
		}
		if ctx.Err() != nil {
			// The client has completed the operation and wants to know no more of it.
			return nil
		}
		for _, err := range response.Errors {
			transport.AddSubscriptionError(ctx, err)
		}
		return nil
	}, ctx
}

type socketKey struct{}

func socketOf(ctx context.Context) *socket {
	return ctx.Value(socketKey{}).(*socket)
}

// upgraded hands gqlgen's transport the connection that Do has made.
type upgraded struct{}

// Accept implements transport.WebsocketImplementation.
func (upgraded) Accept(
	_ http.ResponseWriter, r *http.Request, _ transport.WebsocketAcceptOptions,
) (transport.WebsocketConn, error) {
	return socketOf(r.Context()), nil
}

// socket is one connection.
type socket struct {
	operations atomic.Int64

	mu   sync.Mutex
	conn *websocket.Conn
	// expiry ends the connection when its token expires.
	expiry *time.Timer
	// ended is set when a close was sent; no other is sent then.
	ended bool
}

var _ transport.WebsocketConn = (*socket)(nil)

func (s *socket) connect(conn *websocket.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	if s.ended {
		// The server began to shut down while this connection was made.
		s.sendClose(websocket.CloseServiceRestart, "the server restarts")
	}
}

// end closes the connection with a code and a reason, and cuts it when the client does not answer.
func (s *socket) end(code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if s.conn != nil {
		s.sendClose(code, reason)
	}
}

// sendClose needs s.mu.
func (s *socket) sendClose(code int, reason string) {
	// A connection that cannot be written to is as good as closed.
	message := websocket.FormatCloseMessage(code, reason)
	_ = s.conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(closeTimeout))
	time.AfterFunc(closeTimeout, func() { _ = s.conn.Close() })
}

// endAt ends the connection at a time.
func (s *socket) endAt(expires time.Time) {
	timer := time.AfterFunc(time.Until(expires), func() { s.end(closeForbidden, "the access token has expired") })
	s.mu.Lock()
	s.expiry = timer
	s.mu.Unlock()
}

// Close implements transport.WebsocketConn. When a close was sent, the client gets the time to answer it: a connection
// that is cut at once can take the close along.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	return s.conn.Close()
}

// finish ends a connection that is no longer read, having waited for the answer to a close.
func (s *socket) finish() {
	s.mu.Lock()
	ended := s.ended
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.mu.Unlock()
	if ended {
		// Whatever comes is read and forgotten; sendClose sees to an end.
		for {
			if _, _, err := s.conn.NextReader(); err != nil {
				break
			}
		}
	}
	_ = s.conn.Close()
}

// Subprotocol implements transport.WebsocketConn.
func (s *socket) Subprotocol() string { return s.conn.Subprotocol() }

// SetReadLimit implements transport.WebsocketReadLimiter.
func (s *socket) SetReadLimit(limit int64) { s.conn.SetReadLimit(limit) }

// SetReadDeadline implements transport.WebsocketReadDeadliner.
func (s *socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// errNotOurProtocol is why a message was not passed on. The connection is closed then.
var errNotOurProtocol = errors.New("not a message of the protocol")

// NextReader implements transport.WebsocketConn with messages that are Unicode.
func (s *socket) NextReader() (messageType int, r io.Reader, err error) {
	messageType, r, err = s.conn.NextReader()
	if err != nil {
		if websocket.IsCloseError(err,
			websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived) {
			err = transport.ErrWebsocketClosed
		}
		return 0, nil, err
	}
	if messageType != websocket.TextMessage {
		s.end(closeBadRequest, "messages are text")
		return 0, nil, errNotOurProtocol
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return 0, nil, err
	}
	if err := checkJSON(raw); err != nil {
		s.end(closeBadRequest, "messages are JSON in UTF-8")
		return 0, nil, errNotOurProtocol
	}
	return messageType, bytes.NewReader(raw), nil
}

// WriteJSON implements transport.WebsocketConn. A client that does not take what it is sent is cut off: whatever is
// written after a part of a message could not be understood. One that was sent a close gets the time to answer it.
func (s *socket) WriteJSON(v any) error {
	// An error of the deadline is one of the write.
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	err := s.conn.WriteJSON(v)
	if err != nil {
		_ = s.Close()
	}
	return err
}

// closeCodes are the codes that the protocol has for what gqlgen's transport closes with one of RFC 6455.
var closeCodes = map[string]int{
	"connection initialisation timeout": closeInitLate,
	"decoding error":                    closeBadRequest,
	"unexpected message":                closeBadRequest,
}

// WriteClose implements transport.WebsocketConn.
func (s *socket) WriteClose(code int, reason string) error {
	if better, ok := closeCodes[reason]; ok {
		code = better
	}
	s.end(code, reason)
	return nil
}
