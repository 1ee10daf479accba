// Package revocation tells whoever accepts access tokens, through Redis, that sessions were revoked.
//
// It is a hint and promises nothing: Redis may be away, the process may die between the commit and the publish, and a
// subscriber may be disconnected. The truth is the list that users keeps in its database, which graph reads every now
// and then. In return nobody who signs out ever waits for Redis.
package revocation

import (
	"context"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
)

const (
	// queueSize bounds the revocations that wait for Redis, and so, at some fifty bytes each, one publish.
	queueSize = 1024
	// publishTimeout bounds a round trip to Redis.
	publishTimeout = 2 * time.Second
)

// Publisher publishes in the background.
type Publisher struct {
	redis redis.UniversalClient
	log   *slog.Logger
	queue chan *usersv1.RevokedSession
}

// New returns a publisher; its Run does the work.
func New(rdb redis.UniversalClient, log *slog.Logger) *Publisher {
	return &Publisher{redis: rdb, log: log, queue: make(chan *usersv1.RevokedSession, queueSize)}
}

// Publish hands over a session whose revocation is committed, and returns at once.
func (p *Publisher) Publish(ctx context.Context, session *usersv1.RevokedSession) {
	select {
	case p.queue <- session:
	default:
		p.log.WarnContext(ctx, "a revocation is not published, since too many wait for Redis; graph will find it by asking")
	}
}

// Run publishes until ctx ends, and then what still waits, once. Nothing may call Publish after ctx has ended. It
// returns nil.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		select {
		case first := <-p.queue:
			p.publish(ctx, first)
		case <-ctx.Done():
			select {
			case first := <-p.queue:
				p.publish(ctx, first)
			default:
			}
			return nil
		}
	}
}

// publish publishes a revocation and those that wait behind it.
func (p *Publisher) publish(ctx context.Context, first *usersv1.RevokedSession) {
	told := &eventsv1.SessionsRevoked{Sessions: []*usersv1.RevokedSession{first}}
	for len(p.queue) > 0 {
		told.Sessions = append(told.Sessions, <-p.queue)
	}
	payload, err := proto.Marshal(told)
	if err != nil {
		p.log.ErrorContext(ctx, "a revocation could not be encoded", "error", err)
		return
	}
	// The context's end must not cut a publish short that Redis may have taken.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	if err := p.redis.Publish(ctx, api.RevocationChannel, payload).Err(); err != nil {
		p.log.WarnContext(ctx, "revocations were not published; graph will find them by asking",
			"sessions", len(told.GetSessions()), "error", err)
	}
}
