package transport

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/graph/internal/live"
	"chatapp.dev/services/graph/internal/ratelimit"
	"chatapp.dev/services/graph/internal/revocation"
	"chatapp.dev/services/graph/internal/sendq"
)

// watchInterval is how often every connection is looked at. No limit on time that a connection has is finer. All are
// looked at in one go: to send the pings of idle connections one by one took twice the CPU of sending them together.
const watchInterval = 500 * time.Millisecond

// expiryMargin is how long before its token expires a connection is closed, so that it is never later than that, and
// none of its calls is made with a token that expires under way.
const expiryMargin = time.Second

// connection is one that stays open: a WebSocket, or an HTTP response that goes on.
type connection interface {
	// watch does what is due.
	watch(now time.Time)
	// drain ends the connection in such a way that its client connects again elsewhere.
	drain()
	// revoke ends the connection if it stands for the session, which has been revoked.
	revoke(session ids.ID)
	// cut ends the connection at once.
	cut()
}

// Connections are all that are open at the process. One goroutine watches them, so that none of them needs a timer.
type Connections struct {
	cfg      Config
	verifier *revocation.Verifier
	limiter  *ratelimit.Limiter
	fanout   *live.Fanout
	pool     *sendq.Pool
	metrics  *metrics

	// ctx ends when the process gives up what is still open.
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex
	// closing is set when no more connections are let in.
	closing bool
	open    map[connection]struct{}
	// users counts the connections of each user.
	users map[ids.ID]int
	left  sync.WaitGroup
}

// NewConnections returns the connections of a process, whose subscriptions are served by fanout. Run must run for them
// to be watched.
func NewConnections(
	cfg Config, verifier *revocation.Verifier, limiter *ratelimit.Limiter, fanout *live.Fanout,
) *Connections {
	c := &Connections{
		cfg:      cfg,
		verifier: verifier,
		limiter:  limiter,
		fanout:   fanout,
		open:     make(map[connection]struct{}),
		users:    make(map[ids.ID]int),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.metrics = newMetrics(c)
	limits := sendq.Limits{Queue: cfg.QueueBytes, Total: cfg.TotalBytes, WriteTimeout: cfg.WriteTimeout}
	c.pool = sendq.New(limits, c.metrics.evicted)
	return c
}

// Run watches the connections until ctx ends. It returns nil.
func (c *Connections) Run(ctx context.Context) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			for _, each := range c.all() {
				each.watch(now)
			}
		case <-ctx.Done():
			c.metrics.close()
			c.pool.Stop()
			return nil
		}
	}
}

// Refuse lets no more connections in.
func (c *Connections) Refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
}

// Shutdown lets no more connections in, and ends those that are open one after the other, evenly over the time that is
// set for it but for some jitter. It waits for them to be gone, at most until ctx ends, and then gives them up.
func (c *Connections) Shutdown(ctx context.Context) error {
	defer c.cancel()
	c.Refuse()
	open := c.all()
	rand.Shuffle(len(open), func(i, k int) { open[i], open[k] = open[k], open[i] })
	start, step := time.Now(), c.cfg.Drain/time.Duration(max(1, len(open)))
	for i, each := range open {
		// Each has a slot of its own, somewhere in which it is closed.
		at := start.Add(time.Duration(i)*step + rand.N(step+1))
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			// There is no time left to do it gently.
		}
		each.drain()
	}
	gone := make(chan struct{})
	go func() {
		c.left.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		for _, each := range c.all() {
			each.cut()
		}
		return ctx.Err()
	}
}

// Revoke ends the connections of a session that has been revoked. One whose client is just introducing itself is found
// when it is next looked at.
func (c *Connections) Revoke(session ids.ID) {
	for _, each := range c.all() {
		each.revoke(session)
	}
}

// enter lets a connection in, unless the process is stopping.
func (c *Connections) enter(each connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.open[each] = struct{}{}
	c.left.Add(1)
	return true
}

// leave forgets a connection, which user had if it is not zero.
func (c *Connections) leave(each connection, user ids.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, each)
	c.forget(user)
	c.left.Done()
}

// claim counts a connection as the user's, unless the user has too many. Nobody, the zero ID, may have any number.
func (c *Connections) claim(user ids.ID) bool {
	if user.IsZero() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.PerUser > 0 && c.users[user] >= c.cfg.PerUser {
		return false
	}
	c.users[user]++
	return true
}

// disclaim takes back a claim, for a connection that did not enter.
func (c *Connections) disclaim(user ids.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(user)
}

// forget needs mu.
func (c *Connections) forget(user ids.ID) {
	if user.IsZero() {
		return
	}
	if c.users[user]--; c.users[user] == 0 {
		delete(c.users, user)
	}
}

func (c *Connections) all() []connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]connection, 0, len(c.open))
	for each := range c.open {
		all = append(all, each)
	}
	return all
}
