package revocation

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
)

const (
	// reconnectPause is the time between two attempts to connect to Redis.
	reconnectPause = 200 * time.Millisecond
	// pingInterval is how often the connection is tried, and silence how long Redis may send nothing, not even the
	// answer to that, until the connection is taken for dead. With what follows (another connection, and the list) they
	// stay below the five seconds in which a revocation is to be known.
	pingInterval = time.Second
	silence      = 3 * time.Second
	// writeTimeout bounds the sending of one command.
	writeTimeout = 3 * time.Second
)

// bus receives the channel of revocations over a connection of its own, in a cluster to any node, since all of them send
// it. Any error ends the connection, since go-redis would make another one out of sight.
type bus struct {
	rdb redis.UniversalClient
	log *slog.Logger
	// revoked is called with the sessions that Redis tells of.
	revoked func([]*usersv1.RevokedSession)
	// confirmed is called when Redis has confirmed that it sends from now on. What was published before may be missing.
	confirmed func()
	// The constants of the same names.
	pingInterval, silence time.Duration
}

func newBus(
	rdb redis.UniversalClient, log *slog.Logger, revoked func([]*usersv1.RevokedSession), confirmed func(),
) *bus {
	return &bus{
		rdb: rdb, log: log, revoked: revoked, confirmed: confirmed, pingInterval: pingInterval, silence: silence,
	}
}

// run keeps a connection until ctx ends.
func (b *bus) run(ctx context.Context) {
	lost := false
	for {
		err := b.connection(ctx, func() {
			if lost {
				b.log.InfoContext(ctx, "Redis tells of revoked sessions again")
				lost = false
			}
			b.confirmed()
		})
		if ctx.Err() != nil {
			return
		}
		if !lost {
			b.log.WarnContext(ctx, "Redis is lost; revoked sessions are found by asking users until it is back", "error", err)
			lost = true
		}
		// Not all processes at once.
		pause := reconnectPause/2 + rand.N(reconnectPause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// connection connects and receives until an error or ctx's end. It calls up when Redis has confirmed the subscription.
func (b *bus) connection(ctx context.Context, up func()) error {
	// Without channels, Subscribe only makes the object.
	pubsub := b.rdb.Subscribe(ctx)
	tasks, ctx := errgroup.WithContext(ctx)
	// Closing it is what wakes Receive when sending has failed or ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = pubsub.Close() })
	defer func() {
		stop()
		_ = pubsub.Close()
	}()
	tasks.Go(func() error { return b.send(ctx, pubsub) })
	tasks.Go(func() error { return b.receive(ctx, pubsub, up) })
	return tasks.Wait()
}

// send subscribes, and makes a living Redis say something now and then.
func (b *bus) send(ctx context.Context, pubsub *redis.PubSub) error {
	err := bounded(ctx, func(ctx context.Context) error { return pubsub.Subscribe(ctx, api.RevocationChannel) })
	if err != nil {
		return err
	}
	tick := time.NewTicker(b.pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := bounded(ctx, func(ctx context.Context) error { return pubsub.Ping(ctx) }); err != nil {
				return err
			}
		}
	}
}

// bounded sends a command, for a limited time.
func bounded(ctx context.Context, command func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return command(ctx)
}

// receive hands on what Redis sends.
func (b *bus) receive(ctx context.Context, pubsub *redis.PubSub, up func()) error {
	for {
		received, err := pubsub.ReceiveTimeout(ctx, b.silence)
		if err != nil {
			return err
		}
		switch received := received.(type) {
		case *redis.Subscription:
			if received.Kind == "subscribe" {
				up()
			}
		case *redis.Message:
			sessions, err := decode(received.Payload)
			if err != nil {
				b.log.WarnContext(ctx, "Redis told of a revocation that cannot be read", "error", err)
				// What it was about is in the list.
				b.confirmed()
				continue
			}
			b.revoked(sessions)
		case *redis.Pong:
		default:
			return errors.New("redis sent something that is neither a message nor a confirmation")
		}
	}
}

// decode reads what was published.
func decode(payload string) ([]*usersv1.RevokedSession, error) {
	var told eventsv1.SessionsRevoked
	if err := proto.Unmarshal([]byte(payload), &told); err != nil {
		return nil, err
	}
	if len(told.GetSessions()) == 0 {
		return nil, errors.New("it names no session")
	}
	return told.GetSessions(), nil
}
