// Package telemetry sets up traces, metrics and logs for one process.
//
// Traces and metrics follow the standard OTEL_* environment variables. Nothing leaves the process until one of them
// asks for it, so that a developer's machine is not full of refused connections. Trace ids exist even then: they are
// what ties a client's error to the lines of every service's log.
//
// What can be lost: spans and metrics are exported in the background and dropped when the collector is away for
// longer than the exporter's queue lasts. A failing collector never fails or delays a request.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// exportErrorInterval is how often, at most, a failing exporter is mentioned in the log.
const exportErrorInterval = 10 * time.Second

// Setup installs the process's tracer and meter providers, propagators and OpenTelemetry error handler. The returned
// function flushes what is still queued and stops the exporters; it returns no later than its context ends.
//
// A signal is exported when OTEL_EXPORTER_OTLP_ENDPOINT, its own form of it (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,
// OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) or its exporter (OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER) is set.
// OTEL_SDK_DISABLED=true turns everything off, trace ids included. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
// override serviceName.
func Setup(ctx context.Context, serviceName string, log *slog.Logger) (shutdown func(context.Context) error, err error) {
	otel.SetErrorHandler(newErrorHandler(log, exportErrorInterval))
	otel.SetLogger(logr.FromSlogHandler(log.Handler()))
	// Context is propagated even where this process records nothing: the ones before and after it may.
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))

	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return func(context.Context) error { return nil }, nil
	}

	res, err := newResource(ctx, serviceName)
	if err != nil {
		return nil, fmt.Errorf("describe this process to OpenTelemetry (OTEL_RESOURCE_ATTRIBUTES): %w", err)
	}
	tracers, err := newTracerProvider(ctx, res)
	if err != nil {
		return nil, err
	}
	meters, err := newMeterProvider(ctx, res)
	if err != nil {
		return nil, errors.Join(err, tracers.Shutdown(ctx))
	}

	otel.SetTracerProvider(tracers)
	if meters == nil {
		// The API's own meter provider does nothing at no cost.
		return tracers.Shutdown, nil
	}
	otel.SetMeterProvider(meters)
	return func(ctx context.Context) error {
		return errors.Join(tracers.Shutdown(ctx), meters.Shutdown(ctx))
	}, nil
}

// newResource describes this process. The environment comes last, so that it wins.
func newResource(ctx context.Context, serviceName string) (*resource.Resource, error) {
	return resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		// Gives every replica an instance id, without which their metrics would overwrite each other.
		resource.WithService(),
		resource.WithAttributes(
			attribute.String("service.name", serviceName),
			attribute.String("service.version", Version()),
		),
		resource.WithFromEnv(),
	)
}

func newTracerProvider(ctx context.Context, res *resource.Resource) (*sdktrace.TracerProvider, error) {
	if !wanted("TRACES") {
		// Spans that nobody will see cost almost nothing but still carry a trace id. A caller's decision to sample is
		// passed on: the next service may export.
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample()))), nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, exporterError("TRACES", err)
	}
	// The sampler and the batch's size come from OTEL_TRACES_SAMPLER and OTEL_BSP_*, which the SDK reads itself.
	return sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(exporter)), nil
}

func newMeterProvider(ctx context.Context, res *resource.Resource) (*sdkmetric.MeterProvider, error) {
	if !wanted("METRICS") {
		return nil, nil
	}
	reader, err := autoexport.NewMetricReader(ctx)
	if err != nil {
		return nil, exporterError("METRICS", err)
	}
	return sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(reader)), nil
}

// wanted tells whether the environment asks for a signal ("TRACES", "METRICS") to be exported.
func wanted(signal string) bool {
	exporter := os.Getenv("OTEL_" + signal + "_EXPORTER")
	if exporter != "" {
		return exporter != "none"
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

func exporterError(signal string, err error) error {
	return fmt.Errorf("set up the exporter that OTEL_%[1]s_EXPORTER and OTEL_EXPORTER_OTLP_%[1]s_PROTOCOL ask for: %w",
		signal, err)
}
