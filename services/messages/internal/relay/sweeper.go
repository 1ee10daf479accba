package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatapp.dev/internal/platform/fault"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/services/messages/internal/store"
)

const (
	// sweepAge is how old an event must be before it counts as left behind: its own process publishes and flags it
	// much sooner, unless it can't.
	sweepAge = 2 * time.Second
	// sweepEvery is how long a sweeper rests, on average, when it finds nothing.
	sweepEvery = time.Second
)

// Sweep publishes events that their own process has not, until ctx ends. One process of all does the work at a time, by
// a lock in the database; should two do it, as clusters that keep such locks node-local allow, events are published
// twice, which subscribers expect.
func (r *Relay) Sweep(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.sweepWhileElected(ctx); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "the sweeper could not work; it tries again", "error", err)
		}
		rest(ctx, sweepEvery)
	}
	return nil
}

func (r *Relay) sweepWhileElected(ctx context.Context) error {
	lock, err := r.store.Lock(ctx, "chatapp-sweeper")
	if errors.Is(err, mysql.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release(ctx)
	for ctx.Err() == nil {
		if err := lock.Check(ctx); err != nil {
			return err
		}
		n, err := r.sweepOnce(ctx)
		if err != nil {
			return err
		}
		if n < publishBatch {
			rest(ctx, sweepEvery)
		}
	}
	return nil
}

// sweepOnce publishes a batch of events that were left behind, and returns how many.
func (r *Relay) sweepOnce(ctx context.Context) (int, error) {
	if fault.Dropped("messages.sweeper") {
		return 0, nil
	}
	epoch, err := r.store.CurrentEpoch(ctx)
	if err != nil {
		return 0, err
	}
	events, err := r.store.UnrelayedEvents(ctx, time.Now().Add(-sweepAge), publishBatch)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	lanes := make(map[*redis.Client][]outgoing)
	for _, e := range events {
		out, err := r.envelope(ctx, epoch, e)
		if err != nil {
			return 0, err
		}
		server := r.serverOf(ctx, out)
		lanes[server] = append(lanes[server], out)
	}
	n, err := r.sendLanes(ctx, lanes)
	if n > 0 {
		r.log.InfoContext(ctx, "published events that were left behind", "events", n)
	}
	return n, err
}

// sendLanes publishes events to several servers at the same time, and clears the flags of those that were taken, whose
// number it returns.
func (r *Relay) sendLanes(ctx context.Context, lanes map[*redis.Client][]outgoing) (int, error) {
	var (
		mu    sync.Mutex
		sent  []store.EventRef
		trips errgroup.Group
	)
	for _, batch := range lanes {
		trips.Go(func() error {
			taken, err := r.send(ctx, batch)
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, taken...)
			return err
		})
	}
	err := trips.Wait()
	return len(sent), errors.Join(err, r.store.MarkRelayed(ctx, sent))
}

// rest waits for about d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
