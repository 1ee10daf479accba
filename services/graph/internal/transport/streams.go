package transport

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
)

const (
	mediaEvents = "text/event-stream"
	mediaParts  = "multipart/mixed"
	// tokenHeader and tokenParameter bring the token of a reservation.
	tokenHeader    = "X-GraphQL-Event-Stream-Token"
	tokenParameter = "token"
	// operationParameter names an operation of a stream that has several.
	operationParameter = "operationId"
)

// Streams answers operations of every kind by HTTP responses that go on: server-sent events in both modes of graphql-sse,
// and Apollo's multipart subscriptions.
//
// In graphql-sse's mode of a single connection, a reservation is known to the process alone that made it: whatever
// stands in front of several processes must send all requests with one token to one of them.
type Streams struct {
	http        HTTP
	connections *Connections

	mu sync.Mutex
	// reserved has the streams of the mode of single connections, by their tokens.
	reserved map[string]*stream
}

var _ graphql.Transport = (*Streams)(nil)

// NewStreams returns a transport. What it does not stream is answered as plain does.
func NewStreams(connections *Connections, plain HTTP) *Streams {
	return &Streams{http: plain, connections: connections, reserved: make(map[string]*stream)}
}

// Supports implements graphql.Transport.
func (t *Streams) Supports(r *http.Request) bool { return IsStream(r) && !IsUpgrade(r) }

// IsStream tells whether a request is for a response that goes on, or has to do with one.
func IsStream(r *http.Request) bool {
	return wantsEvents(r) || wantsParts(r) || streamToken(r) != "" ||
		r.Method == http.MethodPut || r.Method == http.MethodDelete
}

// wantsEvents tells whether the client prefers events to a single response.
func wantsEvents(r *http.Request) bool {
	ranges := mediaRanges(r.Header.Values("Accept"))
	streamed := best(ranges, mediaEvents)
	return streamed.specificity == named && streamed.quality > 0 &&
		streamed.quality >= max(best(ranges, mediaGraphQL).quality, best(ranges, mediaJSON).quality)
}

// wantsParts tells whether the client knows Apollo's multipart subscriptions.
func wantsParts(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept") {
		for _, element := range splitList(header) {
			media, options, err := mime.ParseMediaType(element)
			if err == nil && media == mediaParts && options["subscriptionspec"] == "1.0" && parseRange(element).quality > 0 {
				return true
			}
		}
	}
	return false
}

func streamToken(r *http.Request) string {
	if token := r.Header.Get(tokenHeader); token != "" {
		return token
	}
	return r.URL.Query().Get(tokenParameter)
}

// Do implements graphql.Transport.
func (t *Streams) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	token := streamToken(r)
	switch {
	case r.Method == http.MethodPut:
		t.reserve(w, r, exec)
	case r.Method == http.MethodDelete:
		t.complete(w, r, token)
	case token != "" && wantsEvents(r):
		t.attach(w, r, token)
	case token != "":
		t.begin(w, r, token, exec)
	default:
		t.stream(w, r, exec)
	}
}

// stream answers an operation by a stream of its own.
func (t *Streams) stream(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	e := events
	if !wantsEvents(r) {
		e = parts
	}
	params, wrong := t.http.read(w, r)
	if wrong != nil {
		t.http.malformed(w, r, wrong)
		return
	}
	ctx := r.Context()
	op, refused := exec.CreateOperationContext(ctx, params)
	if refused == nil && op.Operation.Operation == ast.Mutation && r.Method != http.MethodPost {
		t.http.malformed(w, r, &problem{http.StatusMethodNotAllowed, "a mutation must be sent with POST"})
		return
	}
	if e.contentType == parts.contentType && (refused != nil || op.Operation.Operation != ast.Subscription) {
		// Parts are for subscriptions. Their clients take a single response, too.
		t.http.execute(w, r, exec, op, refused)
		return
	}
	s, err := t.connections.openStream(ctx, t.http.Present, exec, e, true)
	if err != nil {
		t.http.Refuse(w, r, err)
		return
	}
	o, err := s.begin("", e, 0)
	if err != nil {
		s.gone()
		t.http.Refuse(w, r, err)
		return
	}
	if refused != nil {
		// The protocol wants to see what is wrong with an operation in the stream, since a browser's EventSource shows
		// nothing else.
		o.End(exec.DispatchError(graphql.WithOperationContext(ctx, op), refused).Errors)
	} else {
		go o.run(op, s.who)
	}
	s.serve(w, r)
}

// reserve makes a stream that several operations can use, and tells its token.
func (t *Streams) reserve(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if _, err := identity.Must(r.Context()); err != nil {
		t.http.Refuse(w, r, err)
		return
	}
	s, err := t.connections.openStream(r.Context(), t.http.Present, exec, events, false)
	if err != nil {
		t.http.Refuse(w, r, err)
		return
	}
	token := rand.Text()
	t.mu.Lock()
	t.reserved[token] = s
	t.mu.Unlock()
	context.AfterFunc(s.ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.reserved, token)
	})
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, token)
}

// find returns the stream with a token. A caller of another session cannot tell that there is one: what goes on in a
// stream ends with the session that reserved it.
func (t *Streams) find(w http.ResponseWriter, r *http.Request, token string) *stream {
	t.mu.Lock()
	s := t.reserved[token]
	t.mu.Unlock()
	who, known := identity.From(r.Context())
	if s == nil || known && who.SessionID != s.who.SessionID {
		t.http.Reject(w, r, http.StatusNotFound, errs.New(errs.NotFound, "there is no stream with this token"))
		return nil
	}
	return s
}

// attach answers by the stream that was reserved. The token is enough, since a browser's EventSource cannot send more.
func (t *Streams) attach(w http.ResponseWriter, r *http.Request, token string) {
	s := t.find(w, r, token)
	if s == nil {
		return
	}
	if !s.attach() {
		t.http.Reject(w, r, http.StatusConflict, errs.New(errs.Conflict, "the stream with this token is open"))
		return
	}
	s.serve(w, r)
}

// begin executes an operation whose responses go to a stream.
func (t *Streams) begin(w http.ResponseWriter, r *http.Request, token string, exec graphql.GraphExecutor) {
	ctx := r.Context()
	who, err := identity.Must(ctx)
	if err != nil {
		t.http.Refuse(w, r, err)
		return
	}
	s := t.find(w, r, token)
	if s == nil {
		return
	}
	params, wrong := t.http.read(w, r)
	if wrong != nil {
		t.http.malformed(w, r, wrong)
		return
	}
	id, _ := params.Extensions[operationParameter].(string)
	if id == "" || len(id) > maxOperationID {
		t.http.malformed(w, r, badRequest("extensions.operationId must be a string of 1 to %d bytes", maxOperationID))
		return
	}
	op, refused := exec.CreateOperationContext(ctx, params)
	if refused != nil {
		t.http.execute(w, r, exec, op, refused)
		return
	}
	if op.Operation.Operation == ast.Mutation && r.Method != http.MethodPost {
		t.http.malformed(w, r, &problem{http.StatusMethodNotAllowed, "a mutation must be sent with POST"})
		return
	}
	o, err := s.begin(id, eventsOf(id), sizeOf(params))
	if err != nil {
		t.http.Refuse(w, r, err)
		return
	}
	// The request's context ends with the answer.
	op.Headers = nil
	go o.run(op, who)
	w.WriteHeader(http.StatusAccepted)
}

// sizeOf is how much of what asks for an operation is kept for as long as that is under way.
func sizeOf(params *graphql.RawParams) int {
	// It was read from JSON, so that it can be written again.
	variables, _ := json.Marshal(params.Variables)
	return len(params.Query) + len(variables)
}

// complete ends an operation of a stream. There may be none, since both sides can end it.
func (t *Streams) complete(w http.ResponseWriter, r *http.Request, token string) {
	if _, err := identity.Must(r.Context()); err != nil {
		t.http.Refuse(w, r, err)
		return
	}
	id := r.URL.Query().Get(operationParameter)
	if id == "" {
		t.http.malformed(w, r, badRequest("the parameter %s is missing", operationParameter))
		return
	}
	s := t.find(w, r, token)
	if s == nil {
		return
	}
	s.complete(id)
	w.WriteHeader(http.StatusOK)
}
