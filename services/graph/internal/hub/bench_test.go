package hub

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatapp.dev/internal/platform/ids"
)

// BenchmarkDelivery takes a hint from Redis' payload to a user's two subscriptions.
func BenchmarkDelivery(b *testing.B) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer rdb.Close()
	cfg := config()
	cfg.ConfirmWait = 0
	m := newFakeMessages()
	w := &world{TB: b, messages: m, hub: New(cfg, rdb, m, slog.New(slog.DiscardHandler))}
	defer w.hub.Close()
	id := m.signIn(ids.New(), never)
	subs := []*reader{w.subscribe(id, ""), w.subscribe(id, "")}
	channels, payloads := make([]string, b.N), make([]string, b.N)
	for i := range payloads {
		channels[i], payloads[i] = encode(b, m.commit(id.UserID, strings.Repeat("x", 100)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range payloads {
		w.hub.received(channels[i], payloads[i])
		for _, s := range subs {
			if _, err := s.Next(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
}
