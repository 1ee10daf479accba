package revocation

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// observe makes the instruments that tell of a List on the global meter, and returns what ends them.
func observe(l *List) (end func()) {
	meter := otel.Meter("chatapp.dev/services/graph/internal/revocation")
	// An error means that a name is malformed; the instrument works, or does nothing, all the same.
	sessions, err := meter.Int64ObservableUpDownCounter("chatapp.revocation.sessions", metric.WithUnit("{session}"),
		metric.WithDescription("Revoked sessions whose tokens have not ended."))
	handle(err)
	age, err := meter.Float64ObservableGauge("chatapp.revocation.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the list of revoked sessions was read."))
	handle(err)
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		n, since := l.known()
		o.ObserveInt64(sessions, int64(n))
		o.ObserveFloat64(age, since.Seconds())
		return nil
	}, sessions, age)
	handle(err)
	return func() { handle(registration.Unregister()) }
}

// handle passes an error on to OpenTelemetry's own handler.
func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}
