package transport

import (
	"bufio"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/gorilla/websocket"
	"go.opentelemetry.io/otel"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/services/graph/internal/sendq"
)

var tracer = otel.Tracer("chatapp.dev/services/graph")

const (
	subprotocol = "graphql-transport-ws"
	// readBuffer is small since there is one a connection, and most of what clients send is short.
	readBuffer = 512
)

// WebSocket answers operations of every kind on a WebSocket, by the protocol graphql-transport-ws.
type WebSocket struct {
	http        HTTP
	connections *Connections
	origins     Origins
	upgrader    websocket.Upgrader
}

var _ graphql.Transport = (*WebSocket)(nil)

// NewWebSocket returns a transport for pages of the origins and for whatever is no browser.
func NewWebSocket(connections *Connections, origins Origins, plain HTTP) *WebSocket {
	t := &WebSocket{http: plain, connections: connections, origins: origins}
	t.upgrader = websocket.Upgrader{
		Subprotocols:   []string{subprotocol},
		ReadBufferSize: readBuffer,
		// What is sent does not go through the library's buffer but for the answer to the handshake.
		WriteBufferSize: readBuffer,
		WriteBufferPool: &sync.Pool{},
		// Do looks at the origin before it upgrades.
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(w http.ResponseWriter, r *http.Request, status int, reason error) {
			t.http.Reject(w, r, status, errs.Wrap(errs.Invalid, reason, "this is no WebSocket handshake"))
		},
	}
	return t
}

// Supports implements graphql.Transport.
func (t *WebSocket) Supports(r *http.Request) bool { return IsUpgrade(r) }

// Do implements graphql.Transport. It returns when the connection is established, and leaves it to a goroutine that
// keeps nothing of the request.
func (t *WebSocket) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if !t.origins.AllowRequest(r) {
		t.http.Reject(w, r, http.StatusForbidden, errs.New(errs.Forbidden, "pages of this origin may not connect"))
		return
	}
	s := newSocket(t.connections, t.http.Present, exec)
	if !t.connections.enter(s) {
		w.Header().Set("Connection", "close")
		t.http.Reject(w, r, http.StatusServiceUnavailable, errRestarts())
		return
	}
	// The library looks at the first line of them.
	r.Header.Set("Sec-Websocket-Protocol", strings.Join(r.Header.Values("Sec-Websocket-Protocol"), ", "))
	conn, err := t.upgrader.Upgrade(&hijacker{ResponseWriter: w, socket: s}, r, nil)
	if err != nil {
		s.gone()
		return
	}
	s.begin(conn)
	if !slices.Contains(websocket.Subprotocols(r), subprotocol) {
		s.end(closeSubprotocol, "Subprotocol not acceptable")
	}
	go s.read()
}

// hijacker makes all that the library writes to a connection go through the connection's queue.
type hijacker struct {
	http.ResponseWriter
	socket *socket
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	boundBuffer(conn, &h.socket.connections.cfg)
	h.socket.open(conn)
	return wire{Conn: conn, queue: h.socket.queue}, buffers, nil
}

// wire is a connection whose writes are queued.
type wire struct {
	net.Conn
	queue *sendq.Queue
}

// Write queues what the library writes by itself: the answer to the handshake, and the close after a frame that breaks
// the rules of WebSockets.
func (w wire) Write(p []byte) (int, error) {
	w.queue.Push(sendq.Frame{Op: sendq.Raw, Body: slices.Clone(p)})
	return len(p), nil
}
