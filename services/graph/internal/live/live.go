// Package live carries the events of the hub to subscribers: it answers each event as the subscriber's document asks,
// and hands the answer to the subscriber's connection.
//
// Guaranteed: a subscriber is given the answer to every event that its hub subscription yields, in that order, each
// once, until it is told that the subscription has ended, and why. It is given nothing after that, nor once Close has
// been called by itself. An event whose answer could not be made whole ends the subscription: to go on with the next
// one would lose it, since the client would take that one's cursor and never come back for what failed.
//
// An event is executed and serialised once for all subscribers to whom the answer is the same: those of one user with
// the same document, operation and variables, where the variable that only gives the cursor to start from does not
// count. Nothing is shared between users, so nobody can get what was made for somebody else.
//
// Those who catch up at the same time share as well.
//
// A subscriber that is up to date costs no goroutine. Events are handed to all subscribers of a user by one goroutine,
// which lasts as long as there are events; who has to catch up from the log first does so by a goroutine of its own,
// at the pace of its connection.
package live

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"go.opentelemetry.io/otel"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/apierr"
	"chatapp.dev/services/graph/internal/hub"
	"chatapp.dev/services/graph/internal/resolver"
)

var tracer = otel.Tracer("chatapp.dev/services/graph")

// answerTimeout bounds the making of one answer. Its calls have shorter deadlines of their own.
const answerTimeout = 15 * time.Second

// Sink is where a subscriber's answers go. One goroutine at a time calls Next and End.
type Sink interface {
	// Next takes a response: JSON that others may have been given too and that must not be changed. It must not block.
	Next(response []byte)
	// Room waits until the sink can take more without harm, for whoever is catching up. It returns early when the sink
	// is closed, and ctx's error when that ends, as it does with the subscription.
	Room(ctx context.Context) error
	// End takes the errors that the subscription ends with. Nothing follows.
	End(errors gqlerror.List)
}

// Fanout serves the subscribers of one process.
type Fanout struct {
	hub     *hub.Hub
	present graphql.ErrorPresenterFunc
	ctx     context.Context
	cancel  context.CancelFunc

	mu        sync.Mutex
	audiences map[ids.ID]*audience
	shapes    map[shapeKey]*shape
}

// New returns a Fanout of the hub's events. Errors that end a subscription are presented by present.
func New(events *hub.Hub, present graphql.ErrorPresenterFunc) *Fanout {
	f := &Fanout{
		hub:       events,
		present:   present,
		audiences: make(map[ids.ID]*audience),
		shapes:    make(map[shapeKey]*shape),
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Close gives up what is being answered. The hub's end is what ends the subscriptions.
func (f *Fanout) Close() { f.cancel() }

// Subscriber is one subscription of one client.
type Subscriber struct {
	fanout   *Fanout
	audience *audience
	shape    *shape
	events   *hub.Subscription
	sink     Sink

	// The rest is guarded by audience.mu.

	state  state
	closed bool
	// again is set when the subscriber was woken while it was at work.
	again bool
	// giveUp ends the wait of one that is catching up.
	giveUp context.CancelFunc
}

type state int

const (
	// working means that a goroutine takes the subscriber's events, or is about to.
	working state = iota
	// idle means that there are none.
	idle
	// queued means that the audience's goroutine is to look at it.
	queued
)

// Subscribe opens the subscription that the operation asks for, in the name of who. It returns when the subscription is
// established; nothing is given to the sink until Deliver is called. The errors are those of hub.Subscribe, and Invalid
// for an operation that selects nothing.
func (f *Fanout) Subscribe(
	ctx context.Context, exec graphql.GraphExecutor, op *graphql.OperationContext, who identity.Identity, sink Sink,
) (*Subscriber, error) {
	after, err := startOf(op)
	if err != nil {
		return nil, err
	}
	s := &Subscriber{fanout: f, sink: sink}
	f.mu.Lock()
	s.shape = f.shapeOf(exec, op)
	s.audience = f.audiences[who.UserID]
	if s.audience == nil {
		s.audience = &audience{user: who.UserID}
		f.audiences[who.UserID] = s.audience
	}
	s.audience.size++
	f.mu.Unlock()
	if s.events, err = f.hub.Subscribe(ctx, who, after, s.wake); err != nil {
		f.release(s)
		return nil, atField(op, err)
	}
	return s, nil
}

// release forgets what a subscriber shares with others.
func (f *Fanout) release(s *Subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.shape.users--; s.shape.users == 0 {
		delete(f.shapes, s.shape.key)
	}
	if s.audience.size--; s.audience.size == 0 {
		delete(f.audiences, s.audience.user)
	}
}

// Deliver gives the sink what the subscriber has missed, and returns when it is up to date or has ended. From then on
// events are delivered as they come. It must be called once.
func (s *Subscriber) Deliver() {
	s.audience.enter()
	defer s.audience.leave()
	// Otherwise a client that reads nothing and begins one subscription after the other, each from the beginning of the
	// log, would leave a goroutine behind with each that it ends.
	ctx, cancel := context.WithCancel(s.fanout.ctx)
	defer cancel()
	s.audience.mu.Lock()
	s.giveUp = cancel
	closed := s.closed
	s.audience.mu.Unlock()
	if closed {
		return
	}
	for {
		event, state, err := s.events.Take()
		switch {
		case err != nil:
			s.end(err)
			return
		case state == hub.Idle:
			if s.rest() {
				return
			}
		case state == hub.Behind:
			if err := s.events.Read(ctx); err != nil {
				s.end(errClosing())
				return
			}
		default:
			// Unlike those who are up to date, whoever catches up can wait for its client.
			if s.sink.Room(ctx) != nil {
				s.end(errClosing())
				return
			}
			if !s.give(s.answer(event)) {
				return
			}
		}
	}
}

// errClosing is how a subscription ends that the process cannot go on with since it stops.
func errClosing() error {
	return errs.New(errs.Unavailable, "this server is shutting down; resume from the last cursor on another")
}

// Renew gives the subscriber a newer token of the same user.
func (s *Subscriber) Renew(who identity.Identity) { s.events.Renew(who) }

// Close ends the subscription. The sink may still be in a call, but gets none after it. Close may be called repeatedly.
func (s *Subscriber) Close() {
	s.audience.mu.Lock()
	closed, giveUp := s.closed, s.giveUp
	s.closed, s.giveUp = true, nil
	s.audience.mu.Unlock()
	if giveUp != nil {
		giveUp()
	}
	if !closed {
		s.events.Close()
		s.fanout.release(s)
	}
}

// end tells the sink why the subscription has ended, unless it was closed.
func (s *Subscriber) end(err error) {
	s.audience.mu.Lock()
	closed := s.closed
	s.audience.mu.Unlock()
	if !closed {
		s.sink.End(s.present(s.fanout.ctx, err))
		s.Close()
	}
}

// give hands an answer to the sink, and says whether there can be another.
func (s *Subscriber) give(a answer) bool {
	s.audience.mu.Lock()
	closed := s.closed
	s.audience.mu.Unlock()
	switch {
	case closed:
		return false
	case a.failed != nil:
		s.sink.End(a.failed)
		s.Close()
		return false
	default:
		s.sink.Next(a.response)
		return true
	}
}

// wake is called by the hub when there may be something to take.
func (s *Subscriber) wake() {
	a := s.audience
	a.mu.Lock()
	defer a.mu.Unlock()
	switch s.state {
	case working:
		s.again = true
	case idle:
		s.state = queued
		a.ready = append(a.ready, s)
		if !a.running {
			a.running = true
			go a.run()
		}
	}
}

// rest makes the subscriber idle, unless it was woken since it began to work.
func (s *Subscriber) rest() bool {
	s.audience.mu.Lock()
	defer s.audience.mu.Unlock()
	if s.again {
		s.again = false
		return false
	}
	s.state, s.giveUp = idle, nil
	return true
}

// maxAnswers is how many answers of an audience are kept at a time. Its subscribers are about as far as each other.
const maxAnswers = 64

// audience are the subscribers of one user.
type audience struct {
	user ids.ID
	// size is how many there are. It is guarded by Fanout.mu.
	size int

	mu sync.Mutex
	// ready are those that have something to take.
	ready []*Subscriber
	// running is set while there is a goroutine that hands them their events.
	running bool
	// workers is how many goroutines hand out events, that one included.
	workers int
	// answers are the newest, the oldest of which is the first of kept. There are none while nobody hands out events.
	answers map[answerKey]*pending
	kept    []answerKey
}

// answerKey names an answer. The message is the hub's, and the same for all who take the same event from its list, or
// read it from the log at the same time.
type answerKey struct {
	message *messagesv1.Message
	shape   *shape
}

// pending is an answer that is made once for all who want it.
type pending struct {
	made   chan struct{}
	answer answer
}

// enter is called by a goroutine that is about to hand out events, and leave when it is done.
func (a *audience) enter() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.workers++
}

func (a *audience) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.workers--; a.workers == 0 {
		a.answers, a.kept = nil, nil
	}
}

// share returns the answer with a key, which execute makes if nobody has.
func (a *audience) share(key answerKey, execute func() answer) answer {
	a.mu.Lock()
	p, found := a.answers[key]
	if !found {
		p = a.keep(key)
	}
	a.mu.Unlock()
	if found {
		<-p.made
		return p.answer
	}
	p.answer = execute()
	close(p.made)
	if p.answer.failed != nil {
		// Whoever comes later may have more luck.
		a.mu.Lock()
		delete(a.answers, key)
		a.mu.Unlock()
	}
	return p.answer
}

// keep makes room for an answer. It needs mu.
func (a *audience) keep(key answerKey) *pending {
	if len(a.kept) == maxAnswers {
		delete(a.answers, a.kept[0])
		a.kept = append(a.kept[:0], a.kept[1:]...)
	}
	if a.answers == nil {
		a.answers = make(map[answerKey]*pending)
	}
	p := &pending{made: make(chan struct{})}
	a.answers[key] = p
	a.kept = append(a.kept, key)
	return p
}

// run hands out events until there are none.
func (a *audience) run() {
	a.enter()
	defer a.leave()
	var batch []*Subscriber
	for {
		a.mu.Lock()
		if len(a.ready) == 0 {
			a.running = false
			if cap(a.ready) > 8 {
				a.ready = nil
			}
			a.mu.Unlock()
			return
		}
		batch, a.ready = a.ready, batch[:0]
		for _, s := range batch {
			s.state, s.again = working, false
		}
		a.mu.Unlock()
		for _, s := range batch {
			s.advance()
		}
		clear(batch)
	}
}

// advance gives the subscriber what is at hand. What is not is left to a goroutine, so that nobody waits for it.
func (s *Subscriber) advance() {
	for {
		event, state, err := s.events.Take()
		switch {
		case err != nil:
			s.end(err)
			return
		case state == hub.Idle:
			if s.rest() {
				return
			}
		case state == hub.Behind:
			go s.Deliver()
			return
		default:
			if !s.give(s.answer(event)) {
				return
			}
		}
	}
}

// answer is what a document makes of an event: a response in JSON, or the errors that stand in its place.
type answer struct {
	response []byte
	failed   gqlerror.List
}

// answer returns what the subscriber's operation makes of an event. It is the same for every subscriber of the user with
// the same shape.
func (s *Subscriber) answer(event hub.Event) answer {
	return s.audience.share(answerKey{event.Message, s.shape}, func() answer { return s.make(event) })
}

// make executes the operation on an event, with whichever of the user's tokens is good.
func (s *Subscriber) make(event hub.Event) answer {
	ctx, cancel := context.WithTimeout(s.fanout.ctx, answerTimeout)
	defer cancel()
	for {
		who, ok := s.events.Caller()
		if !ok {
			err := errs.New(errs.Unauthenticated, "the access token has expired or been revoked; sign in again")
			return answer{failed: s.present(ctx, err)}
		}
		a := s.execute(identity.With(ctx, who), event)
		if !has(a.failed, apierr.Unauthenticated) {
			return a
		}
		// Another of the user's tokens may still be good.
		s.events.Refuse(who.Token)
	}
}

// execute executes the operation.
func (s *Subscriber) execute(ctx context.Context, event hub.Event) (a answer) {
	// What one document does to the libraries must not end everybody's connections.
	defer func() {
		if p := recover(); p != nil {
			a = answer{failed: s.present(ctx, s.shape.op.RecoverFunc(ctx, p))}
		}
	}()
	ctx = graphql.StartOperationTrace(resolver.WithEvent(ctx, event))
	responses, ctx := s.shape.exec.DispatchOperation(ctx, s.shape.op)
	response := responses(ctx)
	if response == nil {
		// Only the end of ctx leads here.
		return answer{failed: s.present(ctx, errs.New(errs.Unavailable, "the event could not be read in time"))}
	}
	if len(response.Errors) > 0 && isLost(response.Data) {
		return answer{failed: response.Errors}
	}
	return answer{response: Encode(response)}
}

// present makes an error that the subscription ends with. Like every error it has a trace, by which it is found in the
// logs.
func (s *Subscriber) present(ctx context.Context, err error) gqlerror.List {
	ctx, span := tracer.Start(ctx, "ended")
	defer span.End()
	return gqlerror.List{s.fanout.present(ctx, atField(s.shape.op, err))}
}

func has(list gqlerror.List, code string) bool {
	return slices.ContainsFunc(list, func(err *gqlerror.Error) bool { return err.Extensions["code"] == code })
}

// isLost tells whether the data of an event has nothing of it. Errors deeper down, where the schema allows null, leave
// the rest of the event as good as it was.
func isLost(data json.RawMessage) bool {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return true
	}
	for _, value := range fields {
		if string(value) == "null" {
			return true
		}
	}
	return len(fields) == 0
}

// atField gives an error the place of the subscription's field in the response.
func atField(op *graphql.OperationContext, err error) error {
	for _, field := range graphql.CollectFields(op, op.Operation.SelectionSet, nil) {
		return gqlerror.WrapPath(ast.Path{ast.PathName(field.Alias)}, err)
	}
	return err
}
