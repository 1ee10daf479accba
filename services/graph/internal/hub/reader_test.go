package hub

import (
	"context"

	"chatapp.dev/internal/platform/identity"
)

// reader reads a subscription with a goroutine that waits, as a test likes to.
type reader struct {
	*Subscription
	woken chan struct{}
}

// open opens a subscription for a reader.
func (w *world) open(ctx context.Context, id identity.Identity, after string) (*reader, error) {
	r := &reader{woken: make(chan struct{}, 1)}
	var err error
	r.Subscription, err = w.hub.Subscribe(ctx, id, after, func() {
		select {
		case r.woken <- struct{}{}:
		default:
		}
	})
	return r, err
}

// Next waits for the next message event. When it returns ctx's error, nothing is lost: the next call goes on. Any other
// error is that of Take.
func (r *reader) Next(ctx context.Context) (Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		e, state, err := r.Take()
		if err != nil {
			return Event{}, err
		}
		switch state {
		case Taken:
			return e, nil
		case Idle:
			select {
			case <-r.woken:
			case <-ctx.Done():
			}
		case Behind:
			if err := r.Read(ctx); err != nil {
				return Event{}, err
			}
		}
	}
}
