package redistest

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

func client(t *testing.T, s *Server) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStopAndRestartOnTheSamePort(t *testing.T) {
	s, other := Start(t), Start(t)
	if s.Addr == other.Addr {
		t.Fatalf("two servers share the address %s", s.Addr)
	}
	addr, c := s.Addr, client(t, s)
	if err := c.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.Stop()
		if err := c.Ping(t.Context()).Err(); err == nil {
			t.Error("a stopped server answers")
		}
	}
	s.Restart()
	if s.Addr != addr {
		t.Errorf("address changed from %s to %s", addr, s.Addr)
	}
	if n, err := c.Exists(t.Context(), "key").Result(); err != nil || n != 0 {
		t.Errorf("EXISTS after a restart: %d, %v; want 0, since nothing is stored", n, err)
	}
	if err := client(t, other).Ping(t.Context()).Err(); err != nil {
		t.Errorf("the other server: %v", err)
	}
}

func TestShardedPubSubWorks(t *testing.T) {
	c := client(t, Start(t))
	sub := c.SSubscribe(t.Context(), "channel")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil { // The confirmation.
		t.Fatal(err)
	}
	if err := c.SPublish(t.Context(), "channel", "hello").Err(); err != nil {
		t.Fatal(err)
	}
	message, err := sub.ReceiveMessage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if message.Payload != "hello" {
		t.Errorf("received %q, want hello", message.Payload)
	}
}
