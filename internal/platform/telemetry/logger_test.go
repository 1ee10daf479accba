package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

const (
	testTraceID = "0102030405060708090a0b0c0d0e0f10"
	testSpanID  = "0102030405060708"
)

func spanContext(t *testing.T) context.Context {
	t.Helper()
	traceID, err := trace.TraceIDFromHex(testTraceID)
	if err != nil {
		t.Fatal(err)
	}
	spanID, err := trace.SpanIDFromHex(testSpanID)
	if err != nil {
		t.Fatal(err)
	}
	return trace.ContextWithSpanContext(t.Context(),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID}))
}

func TestTraceIDsStandAtTheTopOfALine(t *testing.T) {
	type object = map[string]any
	tests := []struct {
		name   string
		derive func(*slog.Logger) *slog.Logger
		want   object
	}{
		{
			name:   "plain",
			derive: func(l *slog.Logger) *slog.Logger { return l },
			want:   object{"k": "v"},
		},
		{
			name:   "with attributes",
			derive: func(l *slog.Logger) *slog.Logger { return l.With("a", "1") },
			want:   object{"a": "1", "k": "v"},
		},
		{
			name: "in groups",
			derive: func(l *slog.Logger) *slog.Logger {
				return l.With("a", "1").WithGroup("g").With("b", "2").WithGroup("h")
			},
			want: object{"a": "1", "g": object{"b": "2", "h": object{"k": "v"}}},
		},
		{
			name:   "in a group without a name",
			derive: func(l *slog.Logger) *slog.Logger { return slog.New(l.Handler().WithGroup("")) },
			want:   object{"k": "v"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, traced := range []bool{false, true} {
				var out bytes.Buffer
				ctx := t.Context()
				want := object{"level": "INFO", "msg": "hello"}
				for k, v := range test.want {
					want[k] = v
				}
				if traced {
					ctx = spanContext(t)
					want["trace_id"], want["span_id"] = testTraceID, testSpanID
				}
				test.derive(Logger("info", "json", &out)).InfoContext(ctx, "hello", "k", "v")

				var got object
				if err := json.Unmarshal(out.Bytes(), &got); err != nil {
					t.Fatal(err)
				}
				delete(got, "time")
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("traced %v (-want +got)\n%s", traced, diff)
				}
			}
		})
	}
}

// Loggers derived from one logger must not write each other's groups and attributes.
func TestDerivedLoggersAreIndependent(t *testing.T) {
	var out bytes.Buffer
	base := Logger("info", "text", &out).WithGroup("g").With("a", 1).With("b", 2)
	one, two := base.With("only", "one"), base.With("only", "two")
	one.InfoContext(spanContext(t), "hello")
	two.InfoContext(spanContext(t), "hello")
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[0], "g.only=one") || !strings.Contains(lines[1], "g.only=two") {
		t.Errorf("got\n%s", out.String())
	}
}

func TestLevelDecidesWhatIsLogged(t *testing.T) {
	for level, want := range map[string]string{
		"debug":   "DEBUG INFO WARN ERROR",
		"info":    "INFO WARN ERROR",
		"warn":    "WARN ERROR",
		"error":   "ERROR",
		"unknown": "INFO WARN ERROR",
	} {
		var out bytes.Buffer
		log := Logger(level, "json", &out)
		for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.Log(t.Context(), l, "hello")
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			var record struct{ Level string }
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatal(err)
			}
			got = append(got, record.Level)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", level, got, want)
		}
	}
}
