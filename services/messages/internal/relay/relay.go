// Package relay publishes committed events to Redis, each on its user's channel.
//
// It guarantees that every committed event is published at least once, as soon as Redis takes it: at once by the
// process that committed it, or, where that process died, was too busy or could not reach Redis, by a sweeper that
// finds the events not flagged as published. A publish may be doubled or out of order. What Redis does with it is not
// guaranteed at all: subscribers compare the numbers of events with what they have seen, and read the log.
//
// In a Redis Cluster it publishes on sharded channels, and to each primary by itself: one that hangs or is being
// replaced delays the events of the users whose channels it serves, and of nobody else.
package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/fault"
	"chatapp.dev/services/messages/internal/store"
)

const (
	// queueSize bounds the events that wait in memory, and those of them that wait for one Redis server. More than this
	// are left to the sweeper.
	queueSize = 16_384
	// publishBatch is the most events in one round trip to Redis, clearBatch in one statement to MySQL.
	publishBatch = 256
	clearBatch   = 256
	// clearEvery is how long a published event waits for others to have its flag cleared with them.
	clearEvery = 100 * time.Millisecond
	// publishTimeout bounds a round trip to Redis. What it cuts short is left to the sweeper.
	publishTimeout = 2 * time.Second
	// stopTimeout bounds how long a stopping relay goes on emptying its queue.
	stopTimeout = 3 * time.Second
)

// Converter turns a stored event into the form in which clients of the service get it.
type Converter func(store.Epoch, store.Event) *messagesv1.Event

// Relay publishes events in the background.
type Relay struct {
	redis redis.UniversalClient
	// cluster is nil unless redis is one.
	cluster *redis.ClusterClient
	store   *store.Store
	convert Converter
	log     *slog.Logger

	queue     chan outgoing
	published chan store.EventRef
}

// outgoing is an event on its way to Redis.
type outgoing struct {
	ref     store.EventRef
	channel string
	payload []byte
}

// New returns a relay; its Run does the work.
func New(rdb redis.UniversalClient, st *store.Store, convert Converter, log *slog.Logger) *Relay {
	cluster, _ := rdb.(*redis.ClusterClient)
	return &Relay{
		redis: rdb, cluster: cluster, store: st, convert: convert, log: log,
		queue:     make(chan outgoing, queueSize),
		published: make(chan store.EventRef, queueSize),
	}
}

// Publish hands over committed events and returns at once. It never fails: what can't be published now is flagged in
// the log, and the sweeper publishes it later.
func (r *Relay) Publish(ctx context.Context, epoch store.Epoch, events []store.Event) {
	fault.Point("messages.before-publish")
	for _, e := range events {
		if fault.Dropped("messages.publish") {
			continue
		}
		out, err := r.envelope(ctx, epoch, e)
		if err != nil {
			r.log.ErrorContext(ctx, "an event could not be encoded", "error", err)
			continue
		}
		select {
		case r.queue <- out:
		default:
			return
		}
	}
}

func (r *Relay) envelope(ctx context.Context, epoch store.Epoch, e store.Event) (outgoing, error) {
	envelope := &eventsv1.Envelope{
		UserId:        e.UserID.Bytes(),
		Epoch:         epoch.ID[:],
		Event:         r.convert(epoch, e),
		CommittedAtUs: time.Now().UnixMicro(),
	}
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	if len(carrier) > 0 {
		envelope.TraceContext = carrier
	}
	payload, err := proto.Marshal(envelope)
	if err != nil {
		return outgoing{}, err
	}
	return outgoing{
		ref:     store.EventRef{UserID: e.UserID, Seq: e.Seq},
		channel: api.UserChannel(e.UserID.String()),
		payload: payload,
	}, nil
}

// Run publishes until ctx ends, and then what is still in the queue, as far as a few seconds allow. Nothing may call
// Publish after ctx has ended.
func (r *Relay) Run(ctx context.Context) error {
	var cleared sync.WaitGroup
	cleared.Go(func() { r.clearFlags(context.WithoutCancel(ctx)) })
	defer cleared.Wait()
	defer close(r.published)

	d := newDispatcher(r)
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			d.finish(final)
			return nil
		case out := <-r.queue:
			d.sort(ctx, out)
			d.startIdle(ctx)
		case l := <-d.done:
			d.settle(ctx, l)
		}
	}
}

// dispatcher sorts events by the Redis servers that they go to. Only one goroutine uses it.
type dispatcher struct {
	relay *Relay
	// lanes has those with events: one for the only server, or one for each primary of a cluster.
	lanes map[*redis.Client]*lane
	// done receives the lanes whose round trips have ended.
	done chan *lane
}

// lane is the events on their way to one server. One round trip is under way at a time, and those that arrive meanwhile
// are the next.
type lane struct {
	server  *redis.Client
	waiting []outgoing
	busy    bool
}

func newDispatcher(r *Relay) *dispatcher {
	return &dispatcher{relay: r, lanes: make(map[*redis.Client]*lane), done: make(chan *lane)}
}

// sort puts an event and those behind it in the queue, up to a batch, into their lanes.
func (d *dispatcher) sort(ctx context.Context, out outgoing) {
	for n := 1; ; n++ {
		server := d.relay.serverOf(ctx, out)
		l := d.lanes[server]
		if l == nil {
			l = &lane{server: server}
			d.lanes[server] = l
		}
		if len(l.waiting) < queueSize {
			l.waiting = append(l.waiting, out)
		}
		if n == publishBatch || len(d.relay.queue) == 0 {
			return
		}
		out = <-d.relay.queue
	}
}

// startIdle starts a round trip in each lane that has none under way.
func (d *dispatcher) startIdle(ctx context.Context) {
	for _, l := range d.lanes {
		if !l.busy {
			d.start(ctx, l)
		}
	}
}

// start starts a round trip with what waits in an idle lane, or removes the lane if nothing does.
func (d *dispatcher) start(ctx context.Context, l *lane) {
	if len(l.waiting) == 0 {
		delete(d.lanes, l.server)
		return
	}
	batch := l.waiting[:min(len(l.waiting), publishBatch)]
	l.waiting = l.waiting[len(batch):]
	l.busy = true
	go func() {
		d.relay.publishBatch(ctx, batch)
		d.done <- l
	}()
}

// settle goes on with a lane after its round trip.
func (d *dispatcher) settle(ctx context.Context, l *lane) {
	l.busy = false
	d.start(ctx, l)
}

// finish publishes what is still in the queue until ctx ends, and waits for round trips that are under way.
func (d *dispatcher) finish(ctx context.Context) {
	for {
		for ctx.Err() == nil && len(d.relay.queue) > 0 {
			d.sort(ctx, <-d.relay.queue)
		}
		busy := 0
		for _, l := range d.lanes {
			if !l.busy && ctx.Err() == nil {
				d.start(ctx, l)
			}
			if l.busy {
				busy++
			}
		}
		if busy == 0 {
			return
		}
		l := <-d.done
		l.busy = false
	}
}

// serverOf returns the primary of a cluster that an event goes to, as far as the client knows, and else nil.
func (r *Relay) serverOf(ctx context.Context, out outgoing) *redis.Client {
	if r.cluster == nil {
		return nil
	}
	// Only the first time, and as long as that fails, the client has to ask the cluster.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	server, err := r.cluster.MasterForKey(ctx, out.channel)
	if err != nil {
		return nil // Its round trip will fail as well, and say why.
	}
	return server
}

// publishBatch publishes events of one lane, and has their flags cleared.
func (r *Relay) publishBatch(ctx context.Context, batch []outgoing) {
	sent, err := r.send(ctx, batch)
	if err != nil {
		r.log.WarnContext(ctx, "events were not published; the sweeper will", "events", len(batch)-len(sent), "error", err)
	}
	for _, ref := range sent {
		select {
		case r.published <- ref:
		default: // Flags are cleared more slowly than events are published: the sweeper publishes it again and clears it.
		}
	}
}

// send publishes events in one round trip and returns those that Redis has taken, and an error unless it has all.
func (r *Relay) send(ctx context.Context, batch []outgoing) (sent []store.EventRef, err error) {
	// The context's end must not cut a batch short that Redis may have taken.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	pipe := r.redis.Pipeline()
	publish := pipe.Publish
	if r.cluster != nil {
		publish = pipe.SPublish
	}
	answers := make([]*redis.IntCmd, len(batch))
	for i, out := range batch {
		answers[i] = publish(ctx, out.channel, out.payload)
	}
	_, err = pipe.Exec(ctx)
	sent = make([]store.EventRef, 0, len(batch))
	for i, answer := range answers {
		if answer.Err() == nil {
			sent = append(sent, batch[i].ref)
		}
	}
	return sent, err
}

// clearFlags clears the flags of published events in batches, off the path of sending.
func (r *Relay) clearFlags(ctx context.Context) {
	var batch []store.EventRef
	flush := func() {
		if err := r.store.MarkRelayed(ctx, batch); err != nil {
			r.log.WarnContext(ctx, "published events keep their flag; the sweeper will clear it", "error", err)
		}
		batch = batch[:0]
	}
	tick := time.NewTicker(clearEvery)
	defer tick.Stop()
	for {
		select {
		case ref, open := <-r.published:
			if !open {
				flush()
				return
			}
			batch = append(batch, ref)
			if len(batch) >= clearBatch {
				flush()
			}
		case <-tick.C:
			flush()
		}
	}
}
