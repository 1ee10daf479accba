package live

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/redis/go-redis/v9"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"google.golang.org/grpc"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/hub"
)

// oneMessage is a messages service in which every log has one event.
type oneMessage struct {
	messagesv1.MessagesServiceClient // nil: the hub calls only what is below.
}

func (oneMessage) ReadLog(
	_ context.Context, r *messagesv1.ReadLogRequest, _ ...grpc.CallOption,
) (*messagesv1.ReadLogResponse, error) {
	if r.GetCursor() == "" && r.GetAfterSeq() != 0 {
		return nil, errs.New(errs.CursorInvalid, "nobody asks for what comes later")
	}
	return &messagesv1.ReadLogResponse{
		Events: []*messagesv1.Event{{
			Seq: 1, Cursor: "one", Kind: &messagesv1.Event_Message{Message: &messagesv1.Message{Seq: 1, Body: "hello"}},
		}},
		LastSeq: 1, Head: 1, Epoch: []byte("epoch"),
	}, nil
}

// executor answers every event alike, unless it panics.
type executor struct {
	graphql.GraphExecutor // nil: only what is below is called.

	panics bool
}

func (x executor) DispatchOperation(ctx context.Context, _ *graphql.OperationContext) (graphql.ResponseHandler, context.Context) {
	return func(context.Context) *graphql.Response {
		if x.panics {
			panic("a document that the libraries do not survive")
		}
		return &graphql.Response{Data: json.RawMessage(`{"newMessage":{}}`)}
	}, ctx
}

// sink notes what it is given.
type sink struct {
	given []string
	ended gqlerror.List
	// full makes Room wait.
	full bool
}

func (s *sink) Next(response []byte) { s.given = append(s.given, string(response)) }

func (s *sink) Room(ctx context.Context) error {
	if s.full {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (s *sink) End(list gqlerror.List) { s.ended = list }

// fanout returns a fan-out of a hub on its own.
func fanout(t *testing.T) *Fanout {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	events := hub.New(hub.Config{HeadInterval: time.Hour, QueueBytes: 1 << 20, ReplayPage: 10}, rdb, oneMessage{}, log)
	f := New(events, apierr.Presenter{Log: log}.Present)
	t.Cleanup(func() {
		f.Close()
		events.Close()
		_ = rdb.Close()
	})
	return f
}

var schema = gqlparser.MustLoadSchema(&ast.Source{Input: `
	type Query { a: Int }
	type Subscription { newMessage(after: String): Event! }
	type Event { cursor: String! self(a: Int, b: [In]): Event! }
	input In { c: Int }
`})

// operation returns what a server makes of a document.
func operation(t *testing.T, query string, variables map[string]any) *graphql.OperationContext {
	t.Helper()
	document, err := gqlparser.LoadQueryWithRules(schema, query, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	return &graphql.OperationContext{
		RawQuery: query, Doc: document, Operation: document.Operations[0], Variables: variables, RecoverFunc: apierr.Presenter{Log: log}.Recover,
	}
}

func subscribe(t *testing.T, f *Fanout, x executor, to Sink) *Subscriber {
	t.Helper()
	who := identity.Identity{UserID: ids.New(), Token: "token", ExpiresAt: time.Now().Add(time.Hour)}
	s, err := f.Subscribe(t.Context(), x, operation(t, `subscription { newMessage(after: "start") { cursor } }`, nil), who, to)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCloseEndsTheWaitForAClient holds that nothing is left of a subscription whose client reads nothing.
func TestCloseEndsTheWaitForAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fanout(t)
		full := &sink{full: true}
		s := subscribe(t, f, executor{}, full)
		delivered := make(chan struct{})
		go func() {
			defer close(delivered)
			s.Deliver()
		}()
		synctest.Wait()
		select {
		case <-delivered:
			t.Fatal("nobody waits for the client")
		default:
		}
		s.Close()
		<-delivered
		if len(full.given) > 0 || full.ended != nil {
			t.Errorf("got %q and %v after the end", full.given, full.ended)
		}
		// One that is closed before.
		s = subscribe(t, f, executor{}, full)
		s.Close()
		s.Deliver()
		if len(f.shapes) > 0 || len(f.audiences) > 0 {
			t.Errorf("%d shapes and %d audiences are left", len(f.shapes), len(f.audiences))
		}
	})
}

func TestAPanicEndsOneSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fanout(t)
		bad, good := &sink{}, &sink{}
		subscribe(t, f, executor{panics: true}, bad).Deliver()
		if len(bad.given) > 0 || len(bad.ended) != 1 || bad.ended[0].Extensions["code"] != apierr.Internal {
			t.Errorf("got %q and %v", bad.given, bad.ended)
		}
		s := subscribe(t, f, executor{}, good)
		s.Deliver()
		if len(good.given) != 1 || good.given[0] != `{"data":{"newMessage":{}}}` || good.ended != nil {
			t.Errorf("got %q and %v", good.given, good.ended)
		}
		s.Close()
	})
}

// TestWhatAnAnswerDependsOn holds that operations share a shape exactly when nothing that their answers depend on differs.
func TestWhatAnAnswerDependsOn(t *testing.T) {
	const (
		plain     = `subscription($after: String, $a: Int) { newMessage(after: $after) { cursor self(a: $a) { cursor } } }`
		nested    = `subscription($a: Int) { newMessage { ...F } } fragment F on Event { self(b: [{c: $a}]) { cursor } }`
		directive = `subscription($a: Boolean!) { newMessage { ... @include(if: $a) { cursor } } }`
		both      = `subscription($after: String) { newMessage(after: $after) { ...F @skip(if: true) cursor } } fragment F on Event { x: cursor }`
	)
	for _, test := range []struct {
		query       string
		one, other  map[string]any
		wantTheSame bool
	}{
		{plain, map[string]any{"after": "x"}, map[string]any{"after": "y"}, true},
		{plain, map[string]any{"after": "x", "a": 1}, map[string]any{"a": 1}, true},
		{plain, map[string]any{"a": 1}, map[string]any{"a": 2}, false},
		{plain, map[string]any{"a": nil}, map[string]any{}, false},
		{plain, map[string]any{"a": 1}, map[string]any{"a": "1"}, false},
		{nested, map[string]any{"a": 1}, map[string]any{"a": 2}, false},
		{directive, map[string]any{"a": true}, map[string]any{"a": false}, false},
		{both, map[string]any{"after": "x"}, nil, true},
		// Whatever no operation declares.
		{plain, map[string]any{"b": 1}, map[string]any{"b": 2}, true},
	} {
		f := fanout(t)
		f.mu.Lock()
		one, other := f.shapeOf(nil, operation(t, test.query, test.one)), f.shapeOf(nil, operation(t, test.query, test.other))
		f.mu.Unlock()
		if (one == other) != test.wantTheSame {
			t.Errorf("%s with %v and with %v: shared is %v", test.query, test.one, test.other, one == other)
		}
	}
}
