package transport

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatapp.dev/services/graph/internal/sendq"
)

// metrics are what the connections tell of themselves. No attribute names a user.
type metrics struct {
	closes    metric.Int64Counter
	evictions metric.Int64Counter
	close     func()
}

func newMetrics(c *Connections) *metrics {
	meter := otel.Meter("chatapp.dev/services/graph/internal/transport")
	handle := func(err error) {
		if err != nil {
			otel.Handle(err)
		}
	}
	m := &metrics{}
	var err error
	// An error means that a name is malformed; the instrument works, or does nothing, all the same.
	m.closes, err = meter.Int64Counter("chatapp.socket.closes", metric.WithUnit("{connection}"),
		metric.WithDescription("WebSockets closed, by either side, by close code."))
	handle(err)
	m.evictions, err = meter.Int64Counter("chatapp.connection.evictions", metric.WithUnit("{connection}"),
		metric.WithDescription("Connections given up because of their clients, by reason."))
	handle(err)
	open, err := meter.Int64ObservableUpDownCounter("chatapp.connection.open", metric.WithUnit("{connection}"),
		metric.WithDescription("Connections that stay open: WebSockets, and HTTP responses that go on."))
	handle(err)
	queued, err := meter.Int64ObservableUpDownCounter("chatapp.connection.queued", metric.WithUnit("By"),
		metric.WithDescription("Bytes that wait to be sent to clients."))
	handle(err)
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(open, int64(len(c.all())))
		o.ObserveInt64(queued, c.pool.Queued())
		return nil
	}, open, queued)
	handle(err)
	m.close = sync.OnceFunc(func() { handle(registration.Unregister()) })
	return m
}

// closed counts a close.
func (m *metrics) closed(code int) {
	m.closes.Add(context.Background(), 1, metric.WithAttributes(attribute.String("code", codeName(code))))
}

// codeName is what a code is counted as. A client can choose among thousands of them, most of which mean nothing.
func codeName(code int) string {
	if code >= 3000 && (code < closeBadRequest || code > closeTooManyInits) {
		return "other"
	}
	return strconv.Itoa(code)
}

// evicted counts an eviction.
func (m *metrics) evicted(reason error) {
	name := "broken"
	switch {
	case errors.Is(reason, sendq.ErrFull):
		name = "full"
	case errors.Is(reason, sendq.ErrMemory):
		name = "memory"
	case errors.Is(reason, sendq.ErrStalled):
		name = "stalled"
	case errors.Is(reason, errUnanswered):
		name = "unanswered"
	}
	m.evictions.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", name)))
}
