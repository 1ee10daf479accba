package bench

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// burst lets workers do something over and over, and returns how often they did in a second. It ends after a time, or
// sooner after a number of times.
func burst(ctx context.Context, workers int, length time.Duration, most int64, do func(worker int) error) (rate float64, err error) {
	var (
		done    atomic.Int64
		working sync.WaitGroup
		errs    = make([]error, workers)
	)
	begun := time.Now()
	end := begun.Add(length)
	for worker := range workers {
		working.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil && done.Load() < most {
				if err := do(worker); err != nil {
					errs[worker] = err
					return
				}
				done.Add(1)
			}
		})
	}
	working.Wait()
	took := time.Since(begun)
	for _, err := range append(errs, ctx.Err()) {
		if err != nil {
			return 0, err
		}
	}
	return float64(done.Load()) / took.Seconds(), nil
}

// median returns the middle one of some values.
func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// quantile returns the value below which a share of the sorted values lies.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}
