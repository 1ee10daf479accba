// Package retention deletes old events from users' logs.
//
// Messages stay: what goes is a client's ability to resume from a cursor older than the retention, which it is told
// (CURSOR_EXPIRED) and mends by reading its lists anew. A log's floor rises in the transaction that deletes, so that no
// reader takes a shortened log for a whole one.
package retention

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/services/messages/internal/store"
)

const (
	logsPerQuery   = 500
	eventsPerBatch = 1_000
)

// Run deletes events older than keep, once every period and a first time soon after the start, until ctx ends. Several
// processes may do so at once; each log is locked while it is worked on.
func Run(ctx context.Context, st *store.Store, keep, every time.Duration, log *slog.Logger) error {
	timer := time.NewTimer(rand.N(min(every, time.Minute)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			n, err := Delete(ctx, st, time.Now().Add(-keep))
			if err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "old events could not be deleted; the next round tries again", "error", err)
			}
			if n > 0 {
				log.InfoContext(ctx, "deleted old events", "events", n)
			}
			timer.Reset(every)
		}
	}
}

// Delete deletes all events from before the given time, and returns how many.
func Delete(ctx context.Context, st *store.Store, before time.Time) (int, error) {
	var (
		total int
		after ids.ID
	)
	for {
		users, err := st.LogsWithEventsBefore(ctx, before, after, logsPerQuery)
		if err != nil || len(users) == 0 {
			return total, err
		}
		for _, user := range users {
			for {
				n, err := st.DeleteEventsBefore(ctx, user, before, eventsPerBatch)
				total += n
				if err != nil {
					return total, err
				}
				if n < eventsPerBatch {
					break
				}
			}
		}
		after = users[len(users)-1]
	}
}
