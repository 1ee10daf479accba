package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// errorHandler logs OpenTelemetry's background errors. An exporter whose collector is away fails every few seconds,
// for as long as that lasts; the log is worth more to its reader than each of those lines.
type errorHandler struct {
	log      *slog.Logger
	interval time.Duration
	now      func() time.Time

	mu         sync.Mutex
	last       time.Time
	suppressed int
}

func newErrorHandler(log *slog.Logger, interval time.Duration) *errorHandler {
	return &errorHandler{log: log, interval: interval, now: time.Now}
}

// Handle implements otel.ErrorHandler.
func (h *errorHandler) Handle(err error) {
	if err == nil {
		return
	}
	h.mu.Lock()
	now := h.now()
	if !h.last.IsZero() && now.Sub(h.last) < h.interval {
		h.suppressed++
		h.mu.Unlock()
		return
	}
	suppressed := h.suppressed
	h.last, h.suppressed = now, 0
	h.mu.Unlock()

	h.log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry failed",
		slog.Any("err", err), slog.Int("suppressed", suppressed))
}
