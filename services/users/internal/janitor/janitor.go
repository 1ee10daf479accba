// Package janitor deletes sessions that have ended.
//
// A session's row stays for a while after its last access token has ended, revoked or not: until then a revocation must
// be found, and nothing is lost by keeping it for longer. Nobody waits for the janitor, and any number of processes may
// have one at work.
package janitor

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"chatapp.dev/services/users/internal/store"
)

const (
	// every is the time between two rounds.
	every = time.Hour
	// keep is how long a session stays after its end. It is far above what clocks differ.
	keep = time.Hour
	// sessionsPerBatch bounds how many rows one statement locks.
	sessionsPerBatch = 1_000
)

// Run deletes old sessions every hour, and a first time within a minute of the start, until ctx ends. It returns nil.
func Run(ctx context.Context, sessions *store.Store, log *slog.Logger) error {
	timer := time.NewTimer(rand.N(time.Minute))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			n, err := Delete(ctx, sessions, time.Now().UTC().Add(-keep))
			if err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "ended sessions could not be deleted; the next round tries again", "error", err)
			}
			if n > 0 {
				log.InfoContext(ctx, "deleted ended sessions", "sessions", n)
			}
			timer.Reset(every)
		}
	}
}

// Delete deletes all sessions that ended before a time, and returns how many.
func Delete(ctx context.Context, sessions *store.Store, before time.Time) (total int, err error) {
	for {
		n, err := sessions.DeleteSessions(ctx, before, sessionsPerBatch)
		total += n
		if err != nil || n < sessionsPerBatch {
			return total, err
		}
	}
}
