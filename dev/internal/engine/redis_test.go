package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatapp.dev/internal/platform/redistest"
)

func TestOpenRedis(t *testing.T) {
	given := redistest.Start(t).Addr
	tests := []struct {
		opts RedisOptions
		name string
	}{
		{RedisOptions{}, "in this process"},
		{RedisOptions{Kind: RedisAuto, Addr: given}, given},
		{RedisOptions{Kind: RedisMemory, Addr: given}, "in this process"},
		{RedisOptions{Kind: RedisServer}, "private redis-server"},
		{RedisOptions{Kind: RedisAddr, Addr: given}, given},
	}
	for _, test := range tests {
		r, err := OpenRedis(t.Context(), test.opts)
		if err != nil {
			t.Fatalf("%+v: %v", test.opts, err)
		}
		if !strings.Contains(r.Name(), test.name) {
			t.Errorf("%+v: Name() = %q, want it to contain %q", test.opts, r.Name(), test.name)
		}
		client := redis.NewClient(&redis.Options{Addr: r.Addr(), MaxRetries: -1})
		defer client.Close()
		if err := client.Set(t.Context(), "key", "value", 20*time.Millisecond).Err(); err != nil {
			t.Errorf("%+v: %v", test.opts, err)
		}
		for deadline := time.Now().Add(10 * time.Second); client.Exists(t.Context(), "key").Val() != 0; {
			if time.Now().After(deadline) {
				t.Fatalf("%+v: a key does not expire", test.opts)
			}
			time.Sleep(5 * time.Millisecond)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Errorf("%+v: close: %v", test.opts, err)
			}
		}
		ours := r.Addr() != given
		if err := client.Ping(t.Context()).Err(); (err != nil) != ours {
			t.Errorf("%+v: after Close it answers %v", test.opts, err)
		}
	}
}

func TestOpenRedisRefuses(t *testing.T) {
	for kind, want := range map[RedisKind]string{
		"valkey":  `unknown kind of Redis "valkey"`,
		RedisAddr: "no address is given",
	} {
		if _, err := OpenRedis(t.Context(), RedisOptions{Kind: kind}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", kind, err, want)
		}
	}
}

func TestRedisInThisProcessCarriesMessages(t *testing.T) {
	r, err := OpenRedis(t.Context(), RedisOptions{Kind: RedisMemory})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	client := redis.NewClient(&redis.Options{Addr: r.Addr()})
	defer client.Close()
	sub := client.Subscribe(t.Context(), "channel")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil { // The confirmation.
		t.Fatal(err)
	}
	if err := client.Publish(t.Context(), "channel", "hello").Err(); err != nil {
		t.Fatal(err)
	}
	if message, err := sub.ReceiveMessage(t.Context()); err != nil || message.Payload != "hello" {
		t.Errorf("received %v, %v", message, err)
	}
}
