package client

import (
	"context"
	"sync"
	"time"
)

const (
	// resumePause is how long a follower waits before it tries again after a failed attempt; it grows up to resumePauseMax.
	resumePause    = 50 * time.Millisecond
	resumePauseMax = time.Second
)

// Follower is a newMessage subscription that survives its connections: each time one ends, it resumes at the next endpoint
// after the cursor of the last event. Its events are one stream, which has whatever repeats or gaps the servers make:
// a follower mends nothing.
type Follower struct {
	client    *Client
	endpoints []string
	events    chan Event
	cancel    context.CancelFunc
	done      chan struct{}

	mu       sync.Mutex
	socket   *Socket // The current one, or nil between two.
	sockets  int
	awaiting error // Why the last attempt failed; nil while connected.
	err      error
}

// Follow starts a follower after a cursor, which must not be empty: read it with Cursor first. It ends with ctx, with Close,
// or with an error after which no retry is due. Without endpoints it stays at the client's.
func (c *Client) Follow(ctx context.Context, after string, endpoints ...string) *Follower {
	if len(endpoints) == 0 {
		endpoints = []string{c.endpoint}
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &Follower{
		client: c, endpoints: endpoints, events: make(chan Event, eventBuffer), cancel: cancel, done: make(chan struct{}),
	}
	go f.run(ctx, after)
	return f
}

// Events returns the events; the channel is closed when the follower ends.
func (f *Follower) Events() <-chan Event { return f.events }

// Err returns why the follower ended, after Events is closed; nil if ctx or Close ended it.
func (f *Follower) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Sockets returns how many connections it has had so far.
func (f *Follower) Sockets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sockets
}

// Awaiting returns why the follower has no connection at the moment, or nil when it has one.
func (f *Follower) Awaiting() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.awaiting
}

// Cut breaks the current connection, if there is one.
func (f *Follower) Cut() {
	f.mu.Lock()
	socket := f.socket
	f.mu.Unlock()
	if socket != nil {
		socket.Cut()
	}
}

// Close ends the follower and returns when it has.
func (f *Follower) Close() {
	f.cancel()
	<-f.done
}

func (f *Follower) run(ctx context.Context, after string) {
	defer close(f.done)
	defer close(f.events)
	pause := resumePause
	for attempt := 0; ctx.Err() == nil; attempt++ {
		last, err := f.once(ctx, f.endpoints[attempt%len(f.endpoints)], after)
		if ctx.Err() != nil {
			return
		}
		if last != after {
			after, pause = last, resumePause
		}
		f.mu.Lock()
		f.socket, f.awaiting = nil, err
		if !Retryable(err) {
			f.err = err
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, resumePauseMax)
	}
}

// once follows at one endpoint until the connection ends, and returns the cursor of the last event.
func (f *Follower) once(ctx context.Context, endpoint, after string) (string, error) {
	sub, err := f.client.At(endpoint).Subscribe(ctx, after)
	if err != nil {
		return after, err
	}
	f.mu.Lock()
	f.socket, f.awaiting = sub.Socket(), nil
	f.sockets++
	f.mu.Unlock()
	stop := context.AfterFunc(ctx, sub.Socket().Close)
	defer stop()
	for event := range sub.Events() {
		select {
		case f.events <- event:
			after = event.Cursor
		case <-ctx.Done():
			return after, ctx.Err()
		}
	}
	// A subscription can end without its socket, and a resumed one gets a socket of its own.
	sub.Socket().Close()
	return after, sub.Err()
}
