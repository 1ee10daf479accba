package telemetry

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// The formats and levels that [Logger] takes.
const (
	FormatJSON = "json"
	FormatText = "text"

	LevelDebug = "debug"
	LevelInfo  = "info"
	LevelWarn  = "warn"
	LevelError = "error"
)

// Logger returns a logger that writes lines of the format (json unless it is "text") at or above the level (info
// unless it is one of the others) to w. A line logged with a context that carries a span gets its trace_id and
// span_id, always at the top level of the line, where log stores look for them.
func Logger(level, format string, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: slogLevel(level)}
	var handler slog.Handler
	if format == FormatText {
		handler = slog.NewTextHandler(w, options)
	} else {
		handler = slog.NewJSONHandler(w, options)
	}
	return slog.New(traceHandler{Handler: handler})
}

func slogLevel(level string) slog.Level {
	switch level {
	case LevelDebug:
		return slog.LevelDebug
	case LevelWarn:
		return slog.LevelWarn
	case LevelError:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// traceHandler adds the ids of the context's span to each record.
type traceHandler struct {
	slog.Handler

	// beforeGroup is the handler as it was before the first WithGroup, and regroup what has been added since. A
	// record's own attributes land inside the open groups, so a logger with groups adds the ids to beforeGroup and
	// opens the groups again. Both are nil in a logger without groups, which is nearly every one.
	beforeGroup slog.Handler
	regroup     []func(slog.Handler) slog.Handler
}

// Handle implements slog.Handler.
func (h traceHandler) Handle(ctx context.Context, record slog.Record) error {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return h.Handler.Handle(ctx, record)
	}
	traceID := slog.String("trace_id", span.TraceID().String())
	spanID := slog.String("span_id", span.SpanID().String())
	if h.beforeGroup == nil {
		record = record.Clone()
		record.AddAttrs(traceID, spanID)
		return h.Handler.Handle(ctx, record)
	}
	handler := h.beforeGroup.WithAttrs([]slog.Attr{traceID, spanID})
	for _, open := range h.regroup {
		handler = open(handler)
	}
	return handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	add := func(handler slog.Handler) slog.Handler { return handler.WithAttrs(attrs) }
	if h.beforeGroup == nil {
		return traceHandler{Handler: add(h.Handler)}
	}
	return h.inGroup(h.beforeGroup, add)
}

// WithGroup implements slog.Handler.
func (h traceHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	open := func(handler slog.Handler) slog.Handler { return handler.WithGroup(name) }
	if h.beforeGroup == nil {
		return h.inGroup(h.Handler, open)
	}
	return h.inGroup(h.beforeGroup, open)
}

// inGroup returns h with one more step taken since beforeGroup. The slice is copied: loggers derived from the same
// one must not overwrite each other's steps.
func (h traceHandler) inGroup(beforeGroup slog.Handler, step func(slog.Handler) slog.Handler) slog.Handler {
	regroup := append(h.regroup[:len(h.regroup):len(h.regroup)], step)
	return traceHandler{Handler: step(h.Handler), beforeGroup: beforeGroup, regroup: regroup}
}
