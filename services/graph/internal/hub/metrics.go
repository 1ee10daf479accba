package hub

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// metrics are what the hub tells of itself. No attribute names a user.
type metrics struct {
	resumes   metric.Int64Counter
	replayed  metric.Int64Counter
	gaps      metric.Int64Counter
	overflows metric.Int64Counter
	headCalls metric.Int64Counter
	latency   metric.Float64Histogram

	close func()
}

// newMetrics makes the hub's instruments on the global meter.
func newMetrics(h *Hub) *metrics {
	meter := otel.Meter("chatapp.dev/services/graph/internal/hub")
	m := &metrics{}
	// An error means that a name is malformed; the instrument works, or does nothing, all the same.
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		handle(err)
		return c
	}
	observed := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		o, err := meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		handle(err)
		return o
	}
	m.resumes = counter("chatapp.hub.resumes", "{subscription}", "Subscriptions that were opened after a cursor.")
	m.replayed = counter("chatapp.hub.replayed", "{event}", "Events delivered that are older than the subscription.")
	m.gaps = counter("chatapp.hub.gaps", "{gap}", "Times that events were found to exist whose hints had not come.")
	m.overflows = counter("chatapp.hub.overflows", "{overflow}", "Times that a slow subscription fell back to the log.")
	m.headCalls = counter("chatapp.hub.head_calls", "{call}", "Calls to compare users' logs with what was delivered.")
	var err error
	m.latency, err = meter.Float64Histogram("chatapp.hub.delivery.duration", metric.WithUnit("s"),
		metric.WithDescription("From an event's commit to its delivery to a subscription, by two processes' clocks."),
		metric.WithExplicitBucketBoundaries(
			.001, .002, .003, .004, .006, .008, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	handle(err)

	subscriptions := observed("chatapp.hub.subscriptions", "{subscription}", "Open subscriptions.")
	feeds := observed("chatapp.hub.feeds", "{user}", "Users with an open subscription.")
	queued := observed("chatapp.hub.queued", "By", "Bytes of events that subscriptions have yet to take.")
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		open := h.allFeeds()
		var subs, size int64
		for _, f := range open {
			n, bytes := f.queued()
			subs += int64(n)
			size += bytes
		}
		o.ObserveInt64(subscriptions, subs)
		o.ObserveInt64(feeds, int64(len(open)))
		o.ObserveInt64(queued, size)
		return nil
	}, subscriptions, feeds, queued)
	handle(err)
	m.close = sync.OnceFunc(func() { handle(registration.Unregister()) })
	return m
}

// delivered counts an event that a subscription yields.
func (m *metrics) delivered(ctx context.Context, e Event) {
	if e.Replayed {
		m.replayed.Add(ctx, 1)
		return
	}
	m.latency.Record(ctx, max(0, time.Since(e.CommittedAt).Seconds()))
}

// handle passes an error on to OpenTelemetry's own handler.
func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}
