// Package relay publishes committed events to Redis, each on its user's channel.
//
// It guarantees that every committed event is published at least once, as soon as Redis takes it: at once by the
// process that committed it, or, where that process died, was too busy or could not reach Redis, by a sweeper that
// finds the events not flagged as published. A publish may be doubled or out of order. What Redis does with it is not
// guaranteed at all: subscribers compare the numbers of events with what they have seen, and read the log.
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
	// queueSize bounds the events that wait for Redis in memory. More than this are left to the sweeper.
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
	redis   redis.UniversalClient
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
	return &Relay{
		redis: rdb, store: st, convert: convert, log: log,
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

	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			for len(r.queue) > 0 && final.Err() == nil {
				r.publishBatch(final, <-r.queue)
			}
			return nil
		case first := <-r.queue:
			r.publishBatch(ctx, first)
		}
	}
}

// publishBatch publishes the event and those that wait behind it in one round trip.
func (r *Relay) publishBatch(ctx context.Context, first outgoing) {
	batch := []outgoing{first}
	for len(batch) < publishBatch && len(r.queue) > 0 {
		batch = append(batch, <-r.queue)
	}
	if err := r.send(ctx, batch); err != nil {
		r.log.WarnContext(ctx, "events were not published; the sweeper will", "events", len(batch), "error", err)
		return
	}
	for _, out := range batch {
		select {
		case r.published <- out.ref:
		default: // Flags are cleared more slowly than events are published: the sweeper publishes it again and clears it.
		}
	}
}

func (r *Relay) send(ctx context.Context, batch []outgoing) error {
	// The context's end must not cut a batch short that Redis may have taken.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	pipe := r.redis.Pipeline()
	for _, out := range batch {
		pipe.Publish(ctx, out.channel, out.payload)
	}
	_, err := pipe.Exec(ctx)
	return err
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
