package transport

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/live"
	"chatapp.dev/services/graph/internal/revocation"
	"chatapp.dev/services/graph/internal/sendq"
)

// encoding is how a stream's responses look.
type encoding struct {
	contentType string
	// opening comes first, closing last when the stream ends as it should, and heartbeat now and then.
	opening, closing, heartbeat string
	// next surrounds a response, and failed the errors that an operation ends with.
	next, failed [2]string
	// complete follows the last response of an operation.
	complete string
}

// The encodings of the modes in which a stream carries one operation.
var (
	// events is graphql-sse's mode of distinct connections.
	events = encoding{
		contentType: mediaEvents,
		// A comment, so that the client sees at once that it is connected.
		opening:   ":\n\n",
		heartbeat: ":\n\n",
		next:      [2]string{"event: next\ndata: ", "\n\n"},
		failed:    [2]string{`event: next` + "\n" + `data: {"errors":`, "}\n\n"},
		complete:  "event: complete\ndata:\n\n",
	}
	// parts is Apollo's multipart protocol for subscriptions. Each part is followed by the delimiter of the next, so that
	// a client need not wait for that to know that it has the part.
	parts = encoding{
		contentType: `multipart/mixed;boundary="graphql";subscriptionSpec=1.0`,
		opening:     "\r\n--graphql",
		closing:     "--\r\n",
		heartbeat:   partHead + "{}" + partTail,
		next:        [2]string{partHead + `{"payload":`, "}" + partTail},
		failed:      [2]string{partHead + `{"payload":null,"errors":`, "}" + partTail},
	}
)

const (
	partHead = "\r\nContent-Type: application/json\r\n\r\n"
	partTail = "\r\n--graphql"
)

// eventsOf is graphql-sse's encoding for an operation on a connection that has several.
func eventsOf(operationID string) encoding {
	id := string(live.EncodeString(operationID))
	e := events
	e.next = [2]string{`event: next` + "\n" + `data: {"id":` + id + `,"payload":`, "}\n\n"}
	e.failed = [2]string{`event: next` + "\n" + `data: {"id":` + id + `,"payload":{"errors":`, "}}\n\n"}
	e.complete = `event: complete` + "\n" + `data: {"id":` + id + "}\n\n"
	return e
}

// stream is an HTTP response that goes on, and the operations whose responses it carries.
type stream struct {
	connections *Connections
	present     graphql.ErrorPresenterFunc
	exec        graphql.GraphExecutor
	// encoding is that of the stream as a whole.
	encoding encoding
	// who asked for the stream; the zero Identity stands for somebody without a token.
	who   identity.Identity
	queue *sendq.Queue
	// ends is set for a stream that ends with its one operation.
	ends bool

	// ctx ends with the stream.
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex
	// reserved is when the stream was asked for, and attached is set once there is a response for it.
	reserved time.Time
	attached bool
	over     bool
	// operations has those under way by their ids, and kept is the size of what asked for them.
	operations map[string]*streamed
	kept       int
}

const (
	// piece is the most bytes that a client is to take within the write timeout.
	piece = 16 << 10
	// idleBuffer is the most bytes that a stream which has nothing to send keeps for the next time.
	idleBuffer = 4 << 10
)

// openStream returns a stream in somebody's name, or an error for the client when there cannot be one. A stream with a
// single operation has a response already, and ends with the operation; any other waits for its own.
func (c *Connections) openStream(
	ctx context.Context, present graphql.ErrorPresenterFunc, exec graphql.GraphExecutor, e encoding, single bool,
) (*stream, error) {
	s := &stream{
		connections: c, present: present, exec: exec, encoding: e, reserved: time.Now(), operations: make(map[string]*streamed),
		ends: single, attached: single,
	}
	s.who, _ = identity.From(ctx)
	if !c.claim(s.who.UserID) {
		return nil, errs.New(errs.RateLimited, "too many connections of this user")
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	s.queue = c.pool.OpenPulled(sendq.Plain, func(error) { go s.abandon() })
	// From here on it may be ended at any time.
	if !c.enter(s) {
		s.cancel()
		s.queue.Close()
		c.disclaim(s.who.UserID)
		return nil, errRestarts()
	}
	return s, nil
}

func errRestarts() error { return errs.New(errs.Unavailable, "the server restarts; connect again") }

// gone forgets the stream.
func (s *stream) gone() {
	s.stop()
	s.queue.Close()
	s.connections.leave(s, s.who.UserID)
}

// stop ends the operations.
func (s *stream) stop() {
	s.mu.Lock()
	s.over = true
	operations := s.operations
	s.operations = nil
	for _, o := range operations {
		o.over = true
	}
	s.mu.Unlock()
	s.cancel()
	for _, o := range operations {
		o.stop()
	}
}

// abandon ends the stream without the end that its operations would have had, so that the client connects again.
func (s *stream) abandon() {
	s.stop()
	s.queue.Finish(sendq.Frame{}, false, false)
}

// drain implements connection. Events end in mid-stream, which makes their clients connect again; parts have a way to
// say why.
func (s *stream) drain() {
	if s.encoding.closing == "" {
		s.stop()
		s.queue.Finish(sendq.Frame{}, true, false)
		s.leaveIfNobodyAttached()
		return
	}
	s.fail(errs.New(errs.Unavailable, "the server restarts; resume from the last cursor"))
}

// cut implements connection.
func (s *stream) cut() {
	s.queue.Close()
	s.leaveIfNobodyAttached()
}

// watch implements connection.
func (s *stream) watch(now time.Time) {
	s.mu.Lock()
	late := !s.attached && now.Sub(s.reserved) >= s.connections.cfg.InitTimeout
	s.mu.Unlock()
	switch {
	case late:
		s.abandon()
		s.leaveIfNobodyAttached()
	case !s.who.UserID.IsZero() && !now.Before(s.who.ExpiresAt.Add(-expiryMargin)):
		s.fail(errs.New(errs.Unauthenticated, "the access token has expired; sign in again"))
	case !s.who.UserID.IsZero() && !s.connections.verifier.Standing(s.who):
		s.fail(revocation.ErrRevoked)
	}
}

// revoke implements connection.
func (s *stream) revoke(session ids.ID) {
	if !s.who.UserID.IsZero() && s.who.SessionID == session {
		s.fail(revocation.ErrRevoked)
	}
}

// leaveIfNobodyAttached forgets a stream which no response will ever be there for.
func (s *stream) leaveIfNobodyAttached() {
	s.mu.Lock()
	attached := s.attached
	s.attached = true
	s.mu.Unlock()
	if !attached {
		s.gone()
	}
}

// fail ends every operation with an error, and the stream.
func (s *stream) fail(err error) {
	ctx, span := tracer.Start(s.ctx, "ended")
	list := gqlerror.List{s.present(ctx, err)}
	span.End()
	s.mu.Lock()
	operations := make([]*streamed, 0, len(s.operations))
	for _, o := range s.operations {
		operations = append(operations, o)
	}
	s.mu.Unlock()
	for _, o := range operations {
		o.End(list)
		o.stop()
	}
	s.finish()
	s.leaveIfNobodyAttached()
}

// finish ends the stream after what is queued.
func (s *stream) finish() {
	s.queue.Finish(sendq.Frame{Head: []byte(s.encoding.closing)}, true, false)
	s.stop()
}

// attach makes the caller the one who serves the stream. There can be one.
func (s *stream) attach() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached || s.over {
		return false
	}
	s.attached = true
	return true
}

// serve sends what the stream has until it ends or the client is gone.
func (s *stream) serve(w http.ResponseWriter, r *http.Request) {
	defer s.gone()
	cfg := &s.connections.cfg
	control := http.NewResponseController(w)
	// The server's own deadlines are for requests that end.
	_ = control.SetReadDeadline(time.Time{})
	if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		tuneStream(conn, cfg)
	}
	header := w.Header()
	header.Set("Content-Type", s.encoding.contentType)
	header.Set("Cache-Control", "no-store")
	// For proxies that would keep an answer until there is much of it.
	header.Set("X-Accel-Buffering", "no")
	chunk := []byte(s.encoding.opening)
	for {
		for part := range slices.Chunk(chunk, piece) {
			_ = control.SetWriteDeadline(time.Now().Add(cfg.WriteTimeout))
			if _, err := w.Write(part); err != nil {
				return
			}
		}
		if err := control.Flush(); err != nil {
			return
		}
		if cap(chunk) > idleBuffer {
			chunk = nil
		}
		ctx, cancel := context.WithTimeout(r.Context(), cfg.PingInterval)
		var more bool
		chunk, more = s.queue.Pull(ctx, chunk[:0])
		cancel()
		switch {
		case !more || r.Context().Err() != nil:
			return
		case len(chunk) == 0:
			chunk = append(chunk, s.encoding.heartbeat...)
		}
	}
}

// streamed is an operation whose responses a stream carries. It implements live.Sink.
type streamed struct {
	stream   *stream
	id       string
	size     int
	encoding encoding
	ctx      context.Context
	cancel   context.CancelFunc

	// The rest is guarded by stream.mu.

	subscriber *live.Subscriber
	over       bool
}

var _ live.Sink = (*streamed)(nil)

// begin adds an operation to the stream, which so many bytes have asked for, or returns an error for the client when it
// cannot.
func (s *stream) begin(id string, e encoding, size int) (*streamed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return nil, errs.New(errs.Unavailable, "the stream has ended; connect again")
	case s.operations[id] != nil:
		return nil, errs.New(errs.Conflict, "an operation with this operationId is under way")
	case len(s.operations) >= s.connections.cfg.Operations:
		return nil, errs.New(errs.RateLimited, "too many operations are under way on this stream")
	case len(s.operations) > 0 && s.kept+size > openMessages*s.connections.cfg.MessageBytes:
		return nil, errs.New(errs.RateLimited, "the operations under way on this stream are too large together")
	}
	o := &streamed{stream: s, id: id, encoding: e, size: size}
	o.ctx, o.cancel = context.WithCancel(s.ctx)
	s.operations[id] = o
	s.kept += size
	return o, nil
}

// complete ends an operation that the client wants no more of.
func (s *stream) complete(id string) {
	s.mu.Lock()
	o := s.operations[id]
	if o != nil {
		o.forget()
	}
	s.mu.Unlock()
	if o != nil {
		o.stop()
	}
}

// run executes the operation in the name of who asked for it. For a subscription it returns when that is up to date and
// goes on by itself.
func (o *streamed) run(op *graphql.OperationContext, who identity.Identity) {
	s := o.stream
	ctx := graphql.StartOperationTrace(identity.With(o.ctx, who))
	defer func() {
		if p := recover(); p != nil {
			ctx, span := tracer.Start(ctx, "panicked")
			defer span.End()
			o.End(gqlerror.List{s.present(ctx, panicked(p))})
		}
	}()
	if op.Operation.Operation != ast.Subscription {
		responses, ctx := s.exec.DispatchOperation(ctx, op)
		if response := responses(ctx); response != nil {
			o.last(around(o.encoding.next, live.Encode(response)))
		}
		return
	}
	subscribing, span := tracer.Start(ctx, "subscribe")
	subscriber, err := s.connections.fanout.Subscribe(subscribing, s.exec, op, who, o)
	if err != nil {
		list := gqlerror.List{s.present(subscribing, err)}
		span.End()
		o.End(list)
		return
	}
	span.End()
	s.mu.Lock()
	over := o.over
	o.subscriber = subscriber
	s.mu.Unlock()
	if over {
		subscriber.Close()
		return
	}
	subscriber.Deliver()
}

// forget makes the operation's id free for another. It needs stream.mu.
func (o *streamed) forget() {
	o.over = true
	if s := o.stream; s.operations[o.id] == o {
		delete(s.operations, o.id)
		s.kept -= o.size
	}
}

// stop ends what goes on in the operation's name.
func (o *streamed) stop() {
	o.cancel()
	o.stream.mu.Lock()
	o.over = true
	subscriber := o.subscriber
	o.stream.mu.Unlock()
	if subscriber != nil {
		subscriber.Close()
	}
}

// Next implements live.Sink.
func (o *streamed) Next(response []byte) {
	o.stream.mu.Lock()
	defer o.stream.mu.Unlock()
	if !o.over {
		o.stream.queue.Push(around(o.encoding.next, response))
	}
}

// around returns what an encoding surrounds.
func around(with [2]string, body []byte) sendq.Frame {
	return sendq.Frame{Head: []byte(with[0]), Body: body, Tail: []byte(with[1])}
}

// Room implements live.Sink.
func (o *streamed) Room(ctx context.Context) error { return o.stream.queue.Room(ctx) }

// End implements live.Sink.
func (o *streamed) End(list gqlerror.List) {
	o.last(around(o.encoding.failed, live.EncodeErrors(list)))
}

// last sends what ends the operation, all at once, and ends the stream that was for it alone.
func (o *streamed) last(frames ...sendq.Frame) {
	s := o.stream
	s.mu.Lock()
	if o.over {
		s.mu.Unlock()
		return
	}
	o.forget()
	if o.encoding.complete != "" {
		frames = append(frames, sendq.Frame{Head: []byte(o.encoding.complete)})
	}
	s.queue.Push(frames...)
	s.mu.Unlock()
	o.cancel()
	if s.ends {
		s.finish()
	}
}
