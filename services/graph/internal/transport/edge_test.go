package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/gorilla/websocket"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/live"
	"chatapp.dev/services/graph/internal/ratelimit"
	"chatapp.dev/services/graph/internal/revocation"
)

// edge is a server of WebSockets and streams. In a bubble of synctest it is reached by pipes, so that a clock which is
// nobody's shows exactly when something happens, and the end of the bubble that no goroutine is left.
type edge struct {
	*Connections
	t       testing.TB
	socket  *WebSocket
	streams *Streams
	signer  *identity.Signer
	server  *http.Server
	pipes   chan net.Conn
	stop    func()
}

// newEdge starts an edge with the default settings, changed.
func newEdge(t testing.TB, change func(*Config), exec graphql.GraphExecutor) *edge {
	t.Helper()
	var cfg struct {
		Sockets Config `embed:"" prefix:"socket-"`
		run.Common
	}
	if err := run.Parse("edge", &cfg, nil); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&cfg.Sockets)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner([]ed25519.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	verifier := revocation.NewVerifier(identity.NewVerifier(signer.Fetch), revocation.New(revocation.Config{}, nil, nil, log))
	plain := HTTP{Present: apierr.Presenter{Log: log}.Present, MaxBody: 1 << 20, MaxRatio: 10}
	c := NewConnections(cfg.Sockets, verifier, ratelimit.New(ratelimit.Config{}, nil, log), live.New(nil, plain.Present))
	e := &edge{
		Connections: c, t: t, signer: signer,
		socket: NewWebSocket(c, nil, plain), streams: NewStreams(c, plain), pipes: make(chan net.Conn),
	}
	e.server = &http.Server{
		ConnContext: WithConn,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if e.socket.Supports(r) {
				e.socket.Do(w, r, exec)
				return
			}
			if header := r.Header.Get("Authorization"); header != "" {
				ctx, err := Authenticate(r.Context(), verifier, header)
				if err != nil {
					plain.Refuse(w, r, err)
					return
				}
				r = r.WithContext(ctx)
			}
			if e.streams.Supports(r) {
				e.streams.Do(w, r, exec)
				return
			}
			plain.Do(w, r, exec)
		}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	e.stop = sync.OnceFunc(func() {
		bound, unbind := context.WithTimeout(context.Background(), 0)
		defer unbind()
		_ = c.Shutdown(bound)
		_ = e.server.Close()
		cancel()
		running.Wait()
	})
	t.Cleanup(e.stop)
	return e
}

// Accept implements net.Listener.
func (e *edge) Accept() (net.Conn, error) {
	conn, ok := <-e.pipes
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

// Close implements net.Listener.
func (e *edge) Close() error {
	close(e.pipes)
	return nil
}

// Addr implements net.Listener.
func (e *edge) Addr() net.Addr { return &net.TCPAddr{} }

// pipe connects to the server.
func (e *edge) pipe() net.Conn {
	server, client := net.Pipe()
	e.pipes <- server
	return client
}

// bubble runs a test with an edge in a bubble.
func bubble(t *testing.T, change func(*Config), f func(t *testing.T, e *edge)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newEdge(t, change, &fake{release: make(chan struct{})})
		go func() { _ = e.server.Serve(e) }()
		f(t, e)
	})
}

// bearer returns a token of a user, as a header has it.
func (e *edge) bearer(user ids.ID, ttl time.Duration) string {
	e.t.Helper()
	token, _, err := e.signer.Sign(user, ids.New(), ttl)
	if err != nil {
		e.t.Fatal(err)
	}
	return "Bearer " + token
}

// fake executes operations whose documents say what becomes of them. A document is no GraphQL but a word: anything is
// answered at once, but for "wait", which takes until release is closed, "long", whose answer is long, "panic" and "wrong".
type fake struct {
	release chan struct{}
}

// long is the length of a long answer.
const long = 1 << 20

func (x *fake) CreateOperationContext(_ context.Context, params *graphql.RawParams) (*graphql.OperationContext, gqlerror.List) {
	op := &graphql.OperationContext{RawQuery: params.Query, Operation: &ast.OperationDefinition{Operation: ast.Query}}
	switch params.Query {
	case "panic":
		panic("a document that the parser does not survive")
	case "wrong":
		return op, gqlerror.List{{Message: "wrong"}}
	}
	return op, nil
}

func (x *fake) DispatchOperation(ctx context.Context, op *graphql.OperationContext) (graphql.ResponseHandler, context.Context) {
	return func(ctx context.Context) *graphql.Response {
		if op.RawQuery == "wait" {
			select {
			case <-x.release:
			case <-ctx.Done():
				return nil
			}
		}
		asked := op.RawQuery
		if asked == "long" {
			asked = strings.Repeat("x", long)
		}
		return &graphql.Response{Data: json.RawMessage(`{"asked":"` + asked + `"}`)}
	}, ctx
}

func (x *fake) DispatchError(_ context.Context, list gqlerror.List) *graphql.Response {
	return &graphql.Response{Errors: list}
}

// client is the other end of a WebSocket. It reads all the time.
type client struct {
	t    testing.TB
	conn *websocket.Conn
	// received has the messages, and ended the error after them.
	received chan string
	ended    chan error
	// pings counts those of WebSockets. silent makes the client answer none.
	pings  int
	silent bool
}

// dial opens a socket. A client that is deaf reads nothing.
func (e *edge) dial(deaf bool) *client {
	e.t.Helper()
	dialer := websocket.Dialer{
		Subprotocols:   []string{subprotocol},
		NetDialContext: func(context.Context, string, string) (net.Conn, error) { return e.pipe(), nil },
	}
	conn, answer, err := dialer.DialContext(e.t.Context(), "ws://edge/", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	_ = answer.Body.Close()
	e.t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: e.t, conn: conn, received: make(chan string, 1000), ended: make(chan error, 1)}
	conn.SetPingHandler(func(data string) error {
		c.pings++
		if c.silent {
			return nil
		}
		return conn.WriteControl(websocket.PongMessage, []byte(data), time.Time{})
	})
	if !deaf {
		go c.read()
	}
	return c
}

func (c *client) read() {
	for {
		_, message, err := c.conn.ReadMessage()
		if err != nil {
			c.ended <- err
			return
		}
		c.received <- string(message)
	}
}

func (c *client) send(message string) {
	c.t.Helper()
	if err := c.conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		c.t.Fatal(err)
	}
}

// introduce says who the client is.
func (c *client) introduce(bearer string) {
	c.t.Helper()
	c.send(`{"type":"connection_init","payload":{"authorization":"` + bearer + `"}}`)
}

// operate starts an operation.
func (c *client) operate(id, word string) {
	c.t.Helper()
	c.send(`{"id":"` + id + `","type":"subscribe","payload":{"query":"` + word + `"}}`)
}

// got returns what has come since the last call, once nothing more happens.
func (c *client) got() string {
	synctest.Wait()
	var all []string
	for len(c.received) > 0 {
		all = append(all, <-c.received)
	}
	return strings.Join(all, " ")
}

// expect compares what has come since the last call.
func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.got(); got != want {
		c.t.Errorf("got %s, want %s", got, want)
	}
}

// connect opens a socket and introduces it.
func (e *edge) connect(user ids.ID) *client {
	e.t.Helper()
	c := e.dial(false)
	c.introduce(e.bearer(user, 24*time.Hour))
	c.expect(string(ackMessage))
	return c
}

// closed waits for the end of a socket and returns the code and when it was, from a moment on.
func (c *client) closed(from time.Time) (code int, text string, after time.Duration) {
	c.t.Helper()
	err := <-c.ended
	var closed *websocket.CloseError
	if !errors.As(err, &closed) {
		c.t.Fatalf("after %v: %v", time.Since(from), err)
	}
	return closed.Code, closed.Text, time.Since(from)
}

// expectClose waits for the end of a socket, which must come when it is due or at the next look at the connections.
func (c *client) expectClose(from time.Time, code int, due time.Duration) {
	c.t.Helper()
	got, text, after := c.closed(from)
	if got != code || after < due || after > due+watchInterval {
		c.t.Errorf("closed with %d %q after %v, want %d after %v", got, text, after, code, due)
	}
}

// count returns how many connections there are.
func (e *edge) count() int {
	synctest.Wait()
	return len(e.all())
}

func TestWhoeverDoesNotSayWhoItIsIsClosed(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *edge) {
		start := time.Now()
		c := e.dial(false)
		c.send(`{"type":"ping"}`)
		c.expect(string(pongMessage))
		c.expectClose(start, closeInitTimeout, 10*time.Second)
		if n := e.count(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		// Whoever has does not run out of time.
		c = e.connect(ids.New())
		time.Sleep(time.Minute)
		c.send(`{"type":"ping","payload":{"a":[1, 2]}}`)
		c.expect(`{"type":"pong","payload":{"a":[1, 2]}}`)
	})
}

func TestWhoeverDoesNothingIsClosed(t *testing.T) {
	bubble(t, func(c *Config) { c.IdleTimeout = time.Minute }, func(t *testing.T, e *edge) {
		user := ids.New()
		start := time.Now()
		idle, busy := e.connect(user), e.connect(user)
		busy.operate("1", "wait")
		idle.expectClose(start, websocket.CloseNormalClosure, time.Minute)
		time.Sleep(time.Hour)
		busy.expect("")
		busy.operate("2", "quick")
		busy.expect(`{"id":"2","type":"next","payload":{"data":{"asked":"quick"}}} {"id":"2","type":"complete"}`)
		start = time.Now()
		busy.send(`{"id":"1","type":"complete"}`)
		busy.expectClose(start, websocket.CloseNormalClosure, time.Minute)
		busy.expect("")
	})
}

func TestNobodyIsClosedForDoingNothingUnlessItIsSet(t *testing.T) {
	bubble(t, func(c *Config) { c.IdleTimeout = 0 }, func(t *testing.T, e *edge) {
		c := e.connect(ids.New())
		time.Sleep(2 * time.Hour)
		c.operate("1", "still")
		c.expect(`{"id":"1","type":"next","payload":{"data":{"asked":"still"}}} {"id":"1","type":"complete"}`)
	})
}

// TestPings holds that a client is asked whether it is there when it says nothing, and evicted when it does not answer.
func TestPings(t *testing.T) {
	forever := func(c *Config) { c.IdleTimeout = 0 }
	t.Run("answered", func(t *testing.T) {
		bubble(t, forever, func(t *testing.T, e *edge) {
			c := e.connect(ids.New())
			time.Sleep(time.Hour)
			c.expect("")
			if c.pings < 150 || c.pings > 180 {
				t.Errorf("%d pings in an hour", c.pings)
			}
		})
	})
	t.Run("by pongs of the protocol", func(t *testing.T) {
		bubble(t, forever, func(t *testing.T, e *edge) {
			c := e.connect(ids.New())
			c.silent = true
			for range 100 {
				// Whoever is sent something is asked often.
				c.operate("1", "something")
				time.Sleep(time.Second)
				c.send(`{"type":"pong"}`)
			}
			if got := c.got(); strings.Count(got, "complete") != 100 || c.pings < 10 {
				t.Errorf("%d pings, and got %s", c.pings, got)
			}
		})
	})
	t.Run("not answered", func(t *testing.T) {
		bubble(t, forever, func(t *testing.T, e *edge) {
			start := time.Now()
			c := e.dial(false)
			c.silent = true
			c.introduce(e.bearer(ids.New(), time.Hour))
			code, text, after := c.closed(start)
			if code != websocket.CloseTryAgainLater || !strings.Contains(text, "resume") || after < 24*time.Second || after > 26*time.Second {
				t.Errorf("closed with %d %q after %v", code, text, after)
			}
		})
	})
	t.Run("by somebody who is sent something", func(t *testing.T) {
		bubble(t, forever, func(t *testing.T, e *edge) {
			start := time.Now()
			c := e.dial(false)
			c.silent = true
			c.introduce(e.bearer(ids.New(), time.Hour))
			c.operate("1", "something")
			// Two times 4 s, and twice the next look.
			code, _, after := c.closed(start)
			if code != websocket.CloseTryAgainLater || after > 10*time.Second {
				t.Errorf("closed with %d after %v", code, after)
			}
		})
	})
	t.Run("by somebody who reads nothing", func(t *testing.T) {
		bubble(t, forever, func(t *testing.T, e *edge) {
			start := time.Now()
			c := e.dial(true)
			c.introduce(e.bearer(ids.New(), time.Hour))
			for e.count() > 0 {
				time.Sleep(time.Second)
				if time.Since(start) > time.Minute {
					t.Fatal("the connection stays")
				}
			}
		})
	})
}

// TestARudeEndOfTheOther holds that nothing is left of a connection that breaks, in whatever state it is.
func TestARudeEndOfTheOther(t *testing.T) {
	for name, before := range map[string]func(e *edge, c *client){
		"at once":             func(*edge, *client) {},
		"once introduced":     func(e *edge, c *client) { c.introduce(e.bearer(ids.New(), time.Hour)) },
		"within an operation": func(e *edge, c *client) { c.introduce(e.bearer(ids.New(), time.Hour)); c.operate("1", "wait") },
		"within a frame": func(_ *edge, c *client) {
			if _, err := c.conn.NetConn().Write([]byte{0x81, 0xfe, 0xff}); err != nil {
				c.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, e *edge) {
				c := e.dial(false)
				before(e, c)
				synctest.Wait()
				_ = c.conn.Close()
				if n := e.count(); n != 0 {
					t.Errorf("%d connections are left", n)
				}
				if n := e.pool.Queued(); n != 0 || len(e.users) > 0 {
					t.Errorf("%d bytes are queued, and the users are %v", n, e.users)
				}
			})
		})
	}
}

// TestWhatIsNoFrameIsAnswered breaks the rules of WebSockets.
func TestWhatIsNoFrameIsAnswered(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *edge) {
		start := time.Now()
		c := e.dial(false)
		// A frame of a kind that there is none of, and which is not masked.
		if _, err := c.conn.NetConn().Write([]byte{0x83, 0x00}); err != nil {
			t.Fatal(err)
		}
		c.expectClose(start, websocket.CloseProtocolError, 0)
		time.Sleep(closeTimeout + time.Second)
		if n := e.count(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestConnectionsOfAUserAreLimited(t *testing.T) {
	bubble(t, func(c *Config) { c.PerUser = 2 }, func(t *testing.T, e *edge) {
		ada, bob := ids.New(), ids.New()
		first := e.connect(ada)
		e.connect(ada)
		e.connect(bob)
		third := e.dial(false)
		third.introduce(e.bearer(ada, time.Hour))
		third.expectClose(time.Now(), websocket.CloseTryAgainLater, 0)
		// A stream is a connection like another.
		if status, _ := e.ask(e.bearer(ada, time.Hour), "x"); status != http.StatusTooManyRequests {
			t.Errorf("a stream: %d", status)
		}
		if status, _ := e.ask(e.bearer(bob, time.Hour), "x"); status != http.StatusOK {
			t.Errorf("somebody else's stream: %d", status)
		}
		_ = first.conn.Close()
		synctest.Wait()
		e.connect(ada)
	})
}

// ask asks for an operation whose response is a stream, and returns all of it.
func (e *edge) ask(bearer, word string) (status int, body string) {
	e.t.Helper()
	conn := e.pipe()
	defer conn.Close()
	request, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, "http://edge/", strings.NewReader(`{"query":"`+word+`"}`))
	if err != nil {
		e.t.Fatal(err)
	}
	request.Header = http.Header{"Authorization": {bearer}, "Accept": {mediaEvents}, "Content-Type": {mediaJSON}}
	if err := request.Write(conn); err != nil {
		e.t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		e.t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		e.t.Errorf("%q, %v", raw, err)
	}
	return answer.StatusCode, string(raw)
}

// TestASlowClientGetsALongAnswer takes a piece at a time, each nearly as late as it may, on a socket and on a stream.
func TestASlowClientGetsALongAnswer(t *testing.T) {
	t.Run("socket", func(t *testing.T) {
		bubble(t, func(c *Config) { c.PongTimeout = 10 * time.Minute }, func(t *testing.T, e *edge) {
			c := e.dial(true)
			c.introduce(e.bearer(ids.New(), time.Hour))
			c.operate("1", "long")
			read := slow(t, c.conn.NetConn(), "complete")
			if !strings.Contains(read, strings.Repeat("x", long)) {
				t.Errorf("read %d bytes", len(read))
			}
		})
	})
	t.Run("stream", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, e *edge) {
			conn := e.pipe()
			defer conn.Close()
			body := `{"query":"long"}`
			_, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nAccept: text/event-stream\r\n"+
				"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			if err != nil {
				t.Fatal(err)
			}
			read := slow(t, conn, "complete")
			if n := strings.Count(read, "x"); n < long {
				t.Errorf("read %d of it", n)
			}
		})
	})
}

// slow reads 16 KiB in little less than the write timeout, piece by piece, until there is a text.
func slow(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	var read []byte
	buffer := make([]byte, 4<<10)
	for !bytes.Contains(read[max(0, len(read)-2*len(buffer)):], []byte(text)) {
		time.Sleep(900 * time.Millisecond)
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(read), err)
		}
		read = append(read, buffer[:n]...)
	}
	return string(read)
}

// TestWhatAStreamKeepsIsLimited begins operations until they are too many, and too large.
func TestWhatAStreamKeepsIsLimited(t *testing.T) {
	bubble(t, func(c *Config) { c.Operations, c.MessageBytes = 3, 1<<10 }, func(t *testing.T, e *edge) {
		ctx := identity.With(t.Context(), identity.Identity{UserID: ids.New(), ExpiresAt: time.Now().Add(time.Hour)})
		s, err := e.openStream(ctx, e.streams.http.Present, &fake{}, events, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.gone()
		begin := func(id string, size int, want errs.Kind) *streamed {
			t.Helper()
			o, err := s.begin(id, events, size)
			if (err == nil) != (want == errs.Internal) || errs.KindOf(err) != want {
				t.Errorf("%s of %d bytes: %v", id, size, err)
			}
			return o
		}
		// One is let in whatever its size.
		large := begin("large", 1<<20, errs.Internal)
		begin("small", 1, errs.RateLimited)
		large.last()
		begin("1", 4<<10, errs.Internal)
		begin("1", 0, errs.Conflict)
		begin("2", 1, errs.RateLimited)
		s.complete("1")
		first := begin("1", 2<<10, errs.Internal)
		begin("2", 1<<10, errs.Internal)
		begin("3", 1<<10, errs.Internal)
		begin("4", 0, errs.RateLimited)
		s.complete("1")
		begin("1", 1, errs.Internal)
		// The end of the one before is not that of its successor.
		first.last()
		begin("1", 1, errs.Conflict)
		if want := 2<<10 + 1; s.kept != want {
			t.Errorf("%d bytes are kept, not %d", s.kept, want)
		}
		s.stop()
		begin("5", 0, errs.Unavailable)
	})
}

func TestTokens(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *edge) {
		ada := ids.New()
		start := time.Now()
		renewed, other, expired := e.dial(false), e.connect(ada), e.dial(false)
		renewed.introduce(e.bearer(ada, time.Minute))
		expired.introduce(e.bearer(ada, time.Minute))
		renewed.operate("1", "wait")
		renewed.expect(string(ackMessage))
		time.Sleep(50 * time.Second)
		renewed.send(`{"type":"ping","payload":{"authorization":"` + e.bearer(ada, time.Minute) + `"}}`)
		// The token is not sent back.
		renewed.expect(string(pongMessage))
		expired.expectClose(start, closeForbidden, time.Minute-expiryMargin)
		other.send(`{"type":"ping","payload":{"authorization":"` + e.bearer(ids.New(), time.Hour) + `"}}`)
		other.expectClose(time.Now(), closeForbidden, 0)
		renewed.expectClose(start, closeForbidden, 110*time.Second-expiryMargin)
		renewed.expect("")
	})
}

// TestAPanicEndsOneOperation holds that a document which the libraries do not survive harms nobody but who has sent it.
func TestAPanicEndsOneOperation(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *edge) {
		c := e.connect(ids.New())
		c.operate("1", "panic")
		if got := c.got(); !strings.HasPrefix(got, `{"id":"1","type":"error","payload":[{`) || !strings.Contains(got, apierr.Internal) ||
			strings.Contains(got, "survive") {
			t.Errorf("got %s", got)
		}
		c.operate("1", "good")
		c.expect(`{"id":"1","type":"next","payload":{"data":{"asked":"good"}}} {"id":"1","type":"complete"}`)
	})
}

// TestDrainWithinAHandshake drains at every point of a handshake that there is.
func TestDrainWithinAHandshake(t *testing.T) {
	bubble(t, func(c *Config) { c.Drain = 0 }, func(t *testing.T, e *edge) {
		start := time.Now()
		// The library asks after the connection was let in and before it answers.
		shut := make(chan error, 1)
		e.socket.upgrader.CheckOrigin = func(*http.Request) bool {
			go func() { shut <- e.Shutdown(context.Background()) }()
			time.Sleep(time.Second)
			return true
		}
		c := e.dial(false)
		c.expectClose(start, websocket.CloseServiceRestart, time.Second)
		if err := <-shut; err != nil {
			t.Error(err)
		}
		conn := e.pipe()
		defer conn.Close()
		dialer := websocket.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
		_, answer, err := dialer.DialContext(t.Context(), "ws://edge/", nil)
		if err == nil || answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("whoever comes later: %v", err)
		}
		_ = answer.Body.Close()
	})
}

// TestShutdownGivesUpWhoDoesNotGo holds that the deadline is kept, and that nothing is left then.
func TestShutdownGivesUpWhoDoesNotGo(t *testing.T) {
	bubble(t, func(c *Config) { c.Drain = 5 * time.Second }, func(t *testing.T, e *edge) {
		for range 3 {
			e.dial(true).introduce(e.bearer(ids.New(), time.Hour))
		}
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := e.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if n := e.count(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// drained is a connection that notes when it is told to go.
type drained struct {
	connections *Connections
	at          time.Time
}

func (d *drained) watch(time.Time) {}

func (d *drained) revoke(ids.ID) {}

func (d *drained) cut() {}

func (d *drained) drain() {
	d.at = time.Now()
	go d.connections.leave(d, ids.ID{})
}

// TestShutdownIsSpreadEvenly holds that no second, wherever it starts, has more than one and a half times its share.
func TestShutdownIsSpreadEvenly(t *testing.T) {
	for _, n := range []int{40, 333, 3000} {
		bubbled := func(t *testing.T, e *edge) {
			var all []*drained
			for range n {
				d := &drained{connections: e.Connections}
				all = append(all, d)
				e.enter(d)
			}
			start := time.Now()
			if err := e.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			slices.SortFunc(all, func(a, b *drained) int { return a.at.Compare(b.at) })
			if last := all[n-1].at.Sub(start); last > 10*time.Second+time.Millisecond {
				t.Errorf("the last of %d was drained after %v", n, last)
			}
			most := 0
			for i, k := 0, 0; k < n; k++ {
				for all[k].at.Sub(all[i].at) >= time.Second {
					i++
				}
				most = max(most, k-i+1)
			}
			if 10*2*most > 3*n {
				t.Errorf("%d of %d were drained within a second", most, n)
			}
		}
		t.Run("", func(t *testing.T) { bubble(t, func(c *Config) { c.Drain = 10 * time.Second }, bubbled) })
	}
}

// TestStreamsThatOpenWhileTheServerStops opens streams all the time until they are refused.
func TestStreamsThatOpenWhileTheServerStops(t *testing.T) {
	t.Parallel()
	for range 20 {
		e := newEdge(t, func(c *Config) { c.Drain = 0 }, &fake{})
		user := ids.New()
		ctx := identity.With(context.Background(), identity.Identity{UserID: user, ExpiresAt: time.Now().Add(time.Hour)})
		var opening sync.WaitGroup
		for i := range 4 {
			opening.Go(func() {
				for {
					s, err := e.openStream(ctx, e.streams.http.Present, &fake{}, []encoding{events, parts}[i%2], true)
					if err != nil {
						return
					}
					if o, err := s.begin("", s.encoding, 0); err == nil {
						o.last()
					}
					s.gone()
				}
			})
		}
		time.Sleep(100 * time.Microsecond)
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		opening.Wait()
		if len(e.users) > 0 || e.pool.Queued() != 0 {
			t.Fatalf("%v, %d bytes are queued", e.users, e.pool.Queued())
		}
		e.stop()
	}
}

func TestClip(t *testing.T) {
	long := strings.Repeat("x", maxReason)
	for reason, want := range map[string]string{
		"":                  "",
		"short":             "short",
		long:                long,
		long + "y":          long,
		long[1:] + "é":      long[1:],
		long[2:] + "é":      long[2:] + "é",
		long[3:] + "😀":      long[3:],
		long[1:] + "😀":      long[1:],
		long[4:] + "😀":      long[4:] + "😀",
		long[2:] + "éééééé": long[2:] + "é",
	} {
		if got := clip(reason); got != want {
			t.Errorf("%q becomes %q, want %q", reason, got, want)
		}
	}
}

func TestCodesHaveAnEnd(t *testing.T) {
	names := map[string]bool{}
	for code := range 5000 {
		if code < 1000 || code >= 1016 && code < 3000 {
			// The library refuses such a close.
			continue
		}
		names[codeName(code)] = true
	}
	if len(names) > 60 {
		t.Errorf("there are %d names of codes", len(names))
	}
	for code, want := range map[int]string{
		1000: "1000", 1005: "1005", 1006: "1006", 1013: "1013", 3000: "other", 4399: "other", 4400: "4400", 4429: "4429", 4430: "other",
	} {
		if got := codeName(code); got != want {
			t.Errorf("%d is %s, want %s", code, got, want)
		}
	}
}
