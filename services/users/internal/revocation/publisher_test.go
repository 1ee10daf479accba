package revocation

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/redistest"
)

// patience bounds waits that a failure would make endless.
const patience = 30 * time.Second

func revoked() *usersv1.RevokedSession {
	return &usersv1.RevokedSession{Id: ids.New().Bytes(), TokensEndAtMs: time.Now().Add(time.Hour).UnixMilli()}
}

// newPublisher returns a publisher on a Redis, which does not run yet.
func newPublisher(t *testing.T, addr string) *Publisher {
	t.Helper()
	rdb, err := redisclient.Connect("redis://" + addr + "/0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return New(rdb, slog.New(slog.DiscardHandler))
}

// run runs a publisher, and returns what stops it and waits for its end.
func run(t *testing.T, p *Publisher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	}
}

// subscriber receives what is published.
type subscriber struct{ pubsub *redis.PubSub }

func subscribe(t *testing.T, addr string) subscriber {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	pubsub := rdb.Subscribe(t.Context(), api.RevocationChannel)
	if _, err := pubsub.ReceiveTimeout(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = pubsub.Close()
		_ = rdb.Close()
	})
	return subscriber{pubsub}
}

// next returns so many of the sessions that are told of next.
func (s subscriber) next(t *testing.T, n int) []*usersv1.RevokedSession {
	t.Helper()
	var sessions []*usersv1.RevokedSession
	for len(sessions) < n {
		received, err := s.pubsub.ReceiveTimeout(t.Context(), patience)
		if err != nil {
			t.Fatalf("after %d of %d sessions: %v", len(sessions), n, err)
		}
		var told eventsv1.SessionsRevoked
		if err := proto.Unmarshal([]byte(received.(*redis.Message).Payload), &told); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, told.GetSessions()...)
	}
	return sessions
}

func expect(t *testing.T, want, got []*usersv1.RevokedSession) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

func TestRevocationsArePublishedInOrder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := subscribe(t, server.Addr)
	p := newPublisher(t, server.Addr)
	defer run(t, p)()
	want := make([]*usersv1.RevokedSession, 100)
	for i := range want {
		want[i] = revoked()
		p.Publish(t.Context(), want[i])
	}
	expect(t, want, s.next(t, len(want)))
}

func TestWhatWaitsIsPublishedAtTheStop(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := subscribe(t, server.Addr)
	p := newPublisher(t, server.Addr)
	want := []*usersv1.RevokedSession{revoked(), revoked()}
	for _, session := range want {
		p.Publish(t.Context(), session)
	}
	run(t, p)()
	expect(t, want, s.next(t, len(want)))
}

func TestAfterRedisWasAwayRevocationsArePublishedAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := newPublisher(t, server.Addr)
	defer run(t, p)()
	server.Stop()
	p.Publish(t.Context(), revoked())
	server.Restart()
	s := subscribe(t, server.Addr)
	// The first may fall to a connection that is dead already.
	for deadline := time.Now().Add(patience); ; {
		p.Publish(t.Context(), revoked())
		if _, err := s.pubsub.ReceiveTimeout(t.Context(), 100*time.Millisecond); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is published")
		}
	}
}

// A Redis that takes connections and answers nothing is the worst: nothing fails at once.
func TestARedisThatHangsKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := newPublisher(t, listener.Addr().String())
	stop := run(t, p)
	begun := time.Now()
	// More than may wait.
	for range 2 * queueSize {
		p.Publish(t.Context(), revoked())
	}
	if took := time.Since(begun); took > patience/3 {
		t.Errorf("those who sign out were kept waiting for %v", took)
	}
	stop()
}
