package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// collector is an OTLP collector that remembers what it was sent.
type collector struct {
	*httptest.Server

	mu     sync.Mutex
	bodies map[string][]byte // By path.
}

func newCollector(t *testing.T) *collector {
	c := &collector{bodies: map[string][]byte{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bodies[r.URL.Path] = append(c.bodies[r.URL.Path], body...)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) received(path string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.bodies[path])
}

// setup runs Setup in an environment of only these OTEL_ variables, on global providers that do nothing yet.
func setup(t *testing.T, env map[string]string) (shutdown func(context.Context) error, err error) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for k, v := range env {
		t.Setenv(k, v)
	}
	otel.SetTracerProvider(tracenoop.NewTracerProvider())
	otel.SetMeterProvider(metricnoop.NewMeterProvider())
	return Setup(t.Context(), "users", slog.New(slog.DiscardHandler))
}

// work does something that is traced and counted, and returns its span's context.
func work(parent context.Context, t *testing.T) trace.SpanContext {
	t.Helper()
	ctx, span := otel.Tracer("test").Start(parent, "the work")
	defer span.End()
	counter, err := otel.Meter("test").Int64Counter("the.count")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(ctx, 1)
	return span.SpanContext()
}

func TestSignalsAreExportedOnlyWhenTheEnvironmentAsks(t *testing.T) {
	const endpoint = "the collector's URL"
	tests := []struct {
		name            string
		env             map[string]string
		traces, metrics bool
	}{
		{"nothing set", nil, false, false},
		{"one endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, true, true},
		{"endpoint of traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint + "/v1/traces"}, true, false},
		{"endpoint of metrics", map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint + "/v1/metrics"}, false, true},
		{"traces off", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "none"}, false, true},
		{"metrics off", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRICS_EXPORTER": "none"}, true, false},
		{"disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SDK_DISABLED": "true"}, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			collector := newCollector(t)
			env := map[string]string{}
			for k, v := range test.env {
				env[k] = strings.Replace(v, endpoint, collector.URL, 1)
			}
			shutdown, err := setup(t, env)
			if err != nil {
				t.Fatal(err)
			}
			work(t.Context(), t)
			if err := shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			traces, metrics := collector.received("/v1/traces"), collector.received("/v1/metrics")
			if got := strings.Contains(traces, "the work"); got != test.traces {
				t.Errorf("traces exported: %v, want %v", got, test.traces)
			}
			if got := strings.Contains(metrics, "the.count"); got != test.metrics {
				t.Errorf("metrics exported: %v, want %v", got, test.metrics)
			}
			for name, body := range map[string]string{"traces": traces, "metrics": metrics} {
				if body == "" {
					continue
				}
				for _, attribute := range []string{"service.name", "users", "service.version", "service.instance.id"} {
					if !strings.Contains(body, attribute) {
						t.Errorf("the resource of %s lacks %s", name, attribute)
					}
				}
			}
		})
	}
}

func TestTheEnvironmentNamesTheService(t *testing.T) {
	collector := newCollector(t)
	shutdown, err := setup(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL,
		"OTEL_SERVICE_NAME":           "chat-users",
	})
	if err != nil {
		t.Fatal(err)
	}
	work(t.Context(), t)
	if err := shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(collector.received("/v1/traces"), "chat-users") {
		t.Error("OTEL_SERVICE_NAME was not used")
	}
}

func TestTraceIDsExistWithoutAnExporter(t *testing.T) {
	if _, err := setup(t, nil); err != nil {
		t.Fatal(err)
	}
	if sc := work(t.Context(), t); !sc.IsValid() || sc.IsSampled() {
		t.Errorf("a trace's start: valid %v, sampled %v, want valid and not sampled", sc.IsValid(), sc.IsSampled())
	}

	// What the caller decided goes on to the next service.
	caller := http.Header{}
	caller.Set("traceparent", "00-"+testTraceID+"-"+testSpanID+"-01")
	ctx := otel.GetTextMapPropagator().Extract(t.Context(), propagation.HeaderCarrier(caller))
	if sc := work(ctx, t); sc.TraceID().String() != testTraceID || !sc.IsSampled() {
		t.Errorf("a continued trace: %s, sampled %v, want the caller's", sc.TraceID(), sc.IsSampled())
	}
}

func TestAWrongExporterNamesItsVariable(t *testing.T) {
	for _, variable := range []string{"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"} {
		_, err := setup(t, map[string]string{variable: "carrier-pigeon"})
		if err == nil || !strings.Contains(err.Error(), variable) {
			t.Errorf("%s: got %v", variable, err)
		}
	}
}

func TestShutdownIsBoundByItsContext(t *testing.T) {
	release := make(chan struct{})
	hole := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hole.Close()
	defer close(release)
	shutdown, err := setup(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": hole.URL})
	if err != nil {
		t.Fatal(err)
	}
	work(t.Context(), t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Without the bound this would wait for the exporter's own 10 s, more than once.
	if err := shutdown(ctx); err == nil {
		t.Error("shutdown succeeded without a collector that answers")
	}
}

func TestAFailingExporterDoesNotFloodTheLog(t *testing.T) {
	var out bytes.Buffer
	handler := newErrorHandler(Logger("info", "text", &out), 10*time.Second)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	handler.now = func() time.Time { return now }
	handler.Handle(nil)
	for i := range 25 {
		handler.Handle(fmt.Errorf("export %d: %w", i, errors.New("refused")))
		now = now.Add(time.Second)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		_, rest, _ := strings.Cut(line, "msg=")
		got = append(got, strings.TrimSpace(rest))
	}
	want := []string{
		`"telemetry failed" err="export 0: refused" suppressed=0`,
		`"telemetry failed" err="export 10: refused" suppressed=9`,
		`"telemetry failed" err="export 20: refused" suppressed=9`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestVersionIsNeverEmpty(t *testing.T) {
	if Version() == "" {
		t.Error("no version")
	}
}
