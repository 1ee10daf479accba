// Package revocation knows the sessions that were ended before their access tokens end, and refuses those tokens.
//
// Tokens are verified by their signature alone, so that a session's end has to be told to whoever accepts them. The
// service users keeps the truth. Each process of graph reads its list of revocations at the start, then at least every
// [Config.PollInterval], and whenever Redis has confirmed a subscription, since something may have been published while
// there was none. In between, users publishes each revocation to Redis.
//
// Guaranteed, once users has acknowledged a revocation: while users can be reached, every process refuses the session's
// tokens, and has told so whoever asked with [List.OnRevoke], within the interval and the time of one call; that is,
// within 30 seconds. With Redis it is usually a matter of milliseconds.
//
// Not guaranteed: while users cannot be reached, a process knows what it has heard from Redis, and one that has just
// started and could not read the list knows nothing until it can. Nothing else can be lost: what is known is kept until
// the session's last token has ended.
package revocation

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/run"
)

const (
	// maxPollInterval leaves a call its five seconds of the thirty after which a revoked session must be refused.
	maxPollInterval = 25 * time.Second
	// retryPause is the time between two attempts to read the list, as long as they fail.
	retryPause = time.Second
	// loadTimeout bounds how long a start waits for the list.
	loadTimeout = 3 * time.Second
	// pageSize is the most sessions that one call returns: a fifth of a megabyte.
	pageSize = 5000
	// tokenGrace is how much longer than its end a token may be accepted: by clocks that differ, in the first place.
	tokenGrace = time.Minute
)

// Config are the settings of a List.
type Config struct {
	// PollInterval is not for tuning: the list of a poll is a few index entries. It bounds what a lost Redis costs.
	PollInterval time.Duration `default:"25s" help:"How often, at least, to ask users for revoked sessions: at most 25s. Redis tells of them at once; without it, this is how late their tokens are refused and their sockets closed."`
}

// Validate refuses settings that would break the guarantee.
func (c *Config) Validate() error {
	if c.PollInterval <= 0 || c.PollInterval > maxPollInterval {
		return run.Invalid(&c.PollInterval, "must be more than 0 and at most %v, but is %v", maxPollInterval, c.PollInterval)
	}
	return nil
}

// List is the revoked sessions whose tokens have not ended. It is safe for concurrent use.
type List struct {
	cfg   Config
	users usersv1.UsersServiceClient
	log   *slog.Logger
	bus   *bus
	// unobserve ends the metrics.
	unobserve func()
	// notify is not changed once Run has been called.
	notify []func(session ids.ID)
	// due has an item when the list is to be read now.
	due chan struct{}

	reading sync.Mutex // Held to read the list, by one at a time.
	// next is where to go on reading; nil is the beginning.
	next *usersv1.RevocationPosition

	mu sync.RWMutex
	// tokensEnd has the revoked sessions, and when the last token of each ends.
	tokensEnd map[ids.ID]time.Time
	// readAt is when the list was last read; before the first time, when the List was made.
	readAt time.Time
}

// New returns an empty list, which Load and Run fill. It makes no connection.
func New(cfg Config, rdb redis.UniversalClient, users usersv1.UsersServiceClient, log *slog.Logger) *List {
	l := &List{
		cfg:       cfg,
		users:     users,
		log:       log,
		due:       make(chan struct{}, 1),
		tokensEnd: make(map[ids.ID]time.Time),
		readAt:    time.Now(),
	}
	l.bus = newBus(rdb, log, l.revokeAll, l.pollNow)
	l.unobserve = observe(l)
	return l
}

// OnRevoke has f called once for each session that is revoked from now on, as soon as that is known here and after
// Revoked says so. Whoever keeps something open for a session notes it down first and asks Revoked then, so that no
// revocation falls between. F must not block: whatever else is revoked waits for it. OnRevoke must be called before Load
// and Run.
func (l *List) OnRevoke(f func(session ids.ID)) { l.notify = append(l.notify, f) }

// Revoked tells whether a session is known to be revoked.
func (l *List) Revoked(session ids.ID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, revoked := l.tokensEnd[session]
	return revoked
}

// Revoke notes that users has revoked a session whose last token ends at a time, so that this process need not be told.
func (l *List) Revoke(session ids.ID, tokensEnd time.Time) {
	now := time.Now()
	if tokensEnd.Add(tokenGrace).Before(now) {
		return
	}
	l.mu.Lock()
	known, revoked := l.tokensEnd[session]
	if !revoked || tokensEnd.After(known) {
		l.tokensEnd[session] = tokensEnd
	}
	l.mu.Unlock()
	if revoked {
		return
	}
	for _, f := range l.notify {
		f(session)
	}
}

// revokeAll notes sessions of which users or Redis tells.
func (l *List) revokeAll(sessions []*usersv1.RevokedSession) {
	for _, session := range sessions {
		id, err := ids.FromBytes(session.GetId())
		if err != nil {
			l.log.Warn("a revoked session has no id", "error", err)
			continue
		}
		l.Revoke(id, time.UnixMilli(session.GetTokensEndAtMs()))
	}
}

// forgetEnded drops the sessions whose tokens have all ended.
func (l *List) forgetEnded(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for session, tokensEnd := range l.tokensEnd {
		if tokensEnd.Add(tokenGrace).Before(now) {
			delete(l.tokensEnd, session)
		}
	}
}

// Load reads the list, before the first token is accepted. When that fails, or takes more than a few seconds, Run goes
// on trying: a process that cannot reach users has no keys to verify a token with, either.
func (l *List) Load(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	if err := l.read(ctx); err != nil {
		l.log.WarnContext(ctx, "revoked sessions are not known yet", "error", err)
		l.pollNow()
	}
}

// Run receives and polls until ctx ends. It returns nil.
func (l *List) Run(ctx context.Context) error {
	defer l.unobserve()
	var tasks sync.WaitGroup
	tasks.Go(func() { l.bus.run(ctx) })
	tasks.Go(func() { l.poll(ctx) })
	tasks.Wait()
	return nil
}

// pollNow has the list read again, from after now.
func (l *List) pollNow() {
	select {
	case l.due <- struct{}{}:
	default:
	}
}

// poll reads the list whenever it is due, until ctx ends.
func (l *List) poll(ctx context.Context) {
	failing := false
	next := time.NewTimer(l.pause())
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-l.due:
		}
		begun := time.Now()
		err := l.read(ctx)
		l.forgetEnded(time.Now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			l.log.WarnContext(ctx, "revoked sessions cannot be read; Redis may tell of them", "error", err)
		case err == nil && failing:
			l.log.InfoContext(ctx, "revoked sessions can be read again")
		}
		failing = err != nil
		if failing {
			next.Reset(min(retryPause, l.cfg.PollInterval))
		} else {
			// The interval is from one beginning to the next, whatever a read takes.
			next.Reset(l.pause() - time.Since(begun))
		}
	}
}

// pause is a time of at most the interval, so that processes that started together do not ask together.
func (l *List) pause() time.Duration {
	return l.cfg.PollInterval - rand.N(l.cfg.PollInterval/4+1)
}

// read reads the list from where it was read to the last time.
func (l *List) read(ctx context.Context) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	after := l.next
	for {
		page, err := l.users.ListRevocations(ctx, &usersv1.ListRevocationsRequest{After: after, PageSize: pageSize})
		if err != nil {
			// The next attempt begins where this one did: a place in the middle is good only for going on at once.
			return err
		}
		l.revokeAll(page.GetSessions())
		after = page.GetNext()
		if !page.GetHasNextPage() {
			break
		}
	}
	l.next = after
	l.mu.Lock()
	l.readAt = time.Now()
	l.mu.Unlock()
	return nil
}

// known returns how many sessions are known, and how long ago the list was read.
func (l *List) known() (sessions int, age time.Duration) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.tokensEnd), time.Since(l.readAt)
}
