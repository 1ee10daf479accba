package hub

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const (
	// reconnectPause is the time between two attempts to connect to Redis.
	reconnectPause = 200 * time.Millisecond
	// connectTimeout bounds one of them.
	connectTimeout = 5 * time.Second
	// pingInterval is how often the connection is tried, and silence how long Redis may send nothing, not even the
	// answer to that, until the connection is taken for dead.
	pingInterval = 3 * time.Second
	silence      = 8 * time.Second
	// writeTimeout bounds the sending of one command.
	writeTimeout = 3 * time.Second
	// channelsACommand is the most channels that one SUBSCRIBE names, so that the confirmations do not fill the
	// buffer that Redis keeps for a client.
	channelsACommand = 1000
)

// link is the bus for one server: it receives channels over one connection, whatever their number. With Sentinel the
// server is the master, and the client closes the connection when that has been replaced.
//
// go-redis' PubSub connects again by itself after an error, and does so out of sight when it is writing: a channel
// whose SUBSCRIBE was being written then is not received until the next reconnection. Its Channel hides reconnections
// altogether, and drops messages when its reader is slow. Therefore any error ends a PubSub here, each has one
// connection at most, and it is read without Channel. What may have been missed between two of them shows in the
// confirmations, which come for every channel of a new connection, even one that go-redis made by itself.
type link struct {
	client   redis.UniversalClient
	log      *slog.Logger
	receiver receiver
	// The constants of the same names.
	pingInterval, silence time.Duration
	// moved is nil, but for a node of a cluster. Then channels are sharded, and moved is called when some of them may
	// have to be received from another node: the connection was lost, or the node refuses or drops a channel.
	moved func()

	// wake has an item when dirty is not empty.
	wake chan struct{}

	mu sync.Mutex
	// dirty has the channels that became wanted or unwanted since Redis was told.
	dirty map[string]struct{}
	// asked has the channels that were asked for on the present connection, and whether Redis has confirmed them.
	asked map[string]bool
}

func newLink(client redis.UniversalClient, log *slog.Logger, r receiver) *link {
	return &link{
		client:       client,
		log:          log,
		receiver:     r,
		pingInterval: pingInterval,
		silence:      silence,
		wake:         make(chan struct{}, 1),
		dirty:        make(map[string]struct{}),
	}
}

// changed implements bus.
func (l *link) changed(channels ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, channel := range channels {
		l.dirty[channel] = struct{}{}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// takeChanged returns the channels that have changed, and forgets them.
func (l *link) takeChanged() map[string]struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := l.dirty
	l.dirty = make(map[string]struct{})
	return changed
}

// ask notes that a channel is asked for.
func (l *link) ask(channel string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[channel] = false
}

// confirm notes that Redis has confirmed a channel.
func (l *link) confirm(channel string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, asked := l.asked[channel]; asked {
		l.asked[channel] = true
	}
}

// forget notes that a channel is not received any more, and says whether it was asked for.
func (l *link) forget(channel string) (asked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, asked = l.asked[channel]
	delete(l.asked, channel)
	return asked
}

// holds says whether Redis has confirmed a channel on the present connection.
func (l *link) holds(channel string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked[channel]
}

// run implements bus. It keeps a connection.
func (l *link) run(ctx context.Context) {
	lost := false
	for ctx.Err() == nil {
		err := l.connection(ctx, func() {
			if lost {
				l.log.InfoContext(ctx, "Redis is back")
				lost = false
			}
		})
		if ctx.Err() != nil {
			return
		}
		if !lost {
			l.log.WarnContext(ctx, "Redis is lost; events are found by comparing logs until it is back", errAttr(err))
			lost = true
		}
		if l.moved != nil {
			l.moved()
		}
		// Not all processes at once.
		pause := reconnectPause/2 + rand.N(reconnectPause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// connection connects and receives until an error or ctx's end. It calls up when something was received first.
func (l *link) connection(ctx context.Context, up func()) error {
	// Without channels, Subscribe only makes the object.
	pubsub := l.client.Subscribe(ctx)
	tasks, ctx := errgroup.WithContext(ctx)
	// Closing it is what wakes Receive when sending has failed or ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = pubsub.Close() })
	defer func() {
		stop()
		_ = pubsub.Close()
		l.mu.Lock()
		l.asked = nil // Nothing is received.
		l.mu.Unlock()
	}()

	// The first command connects.
	if err := bounded(ctx, connectTimeout, func(ctx context.Context) error { return pubsub.Ping(ctx) }); err != nil {
		return err
	}
	l.mu.Lock()
	l.asked = make(map[string]bool)
	l.mu.Unlock()
	l.changed(l.receiver.channels()...)

	// From now on go-redis gets a context that has ended. It looks at the end only when it connects anew: that fails
	// at once then, instead of holding up everybody who closes the PubSub after the error that made it try.
	ended, end := context.WithCancel(ctx)
	end()
	tasks.Go(func() error { return l.send(ctx, ended, pubsub) })
	tasks.Go(func() error { return l.receive(ended, pubsub, up) })
	return tasks.Wait()
}

// send tells Redis what is wanted, and pings.
func (l *link) send(ctx, ended context.Context, pubsub *redis.PubSub) error {
	ping := time.NewTicker(l.pingInterval)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ping.C:
			if err := bounded(ended, writeTimeout, func(ctx context.Context) error { return pubsub.Ping(ctx) }); err != nil {
				return err
			}
		case <-l.wake:
			if err := l.sendChanged(ended, pubsub); err != nil {
				return err
			}
		}
	}
}

// sendChanged subscribes and unsubscribes what has changed.
func (l *link) sendChanged(ended context.Context, pubsub *redis.PubSub) error {
	var subscribe, unsubscribe []string
	for channel := range l.takeChanged() {
		switch {
		case l.receiver.wanted(channel):
			// Even if it is subscribed: somebody new waits for the confirmation, and Redis repeats it.
			l.ask(channel)
			subscribe = append(subscribe, channel)
		case l.forget(channel):
			unsubscribe = append(unsubscribe, channel)
		}
	}
	for channels := range slices.Chunk(subscribe, l.chunk()) {
		err := bounded(ended, writeTimeout, func(ctx context.Context) error {
			if l.moved != nil {
				return pubsub.SSubscribe(ctx, channels...)
			}
			return pubsub.Subscribe(ctx, channels...)
		})
		if err != nil {
			return err
		}
	}
	// Never without a channel, which would mean all of them.
	for channels := range slices.Chunk(unsubscribe, l.chunk()) {
		err := bounded(ended, writeTimeout, func(ctx context.Context) error {
			if l.moved != nil {
				return pubsub.SUnsubscribe(ctx, channels...)
			}
			return pubsub.Unsubscribe(ctx, channels...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// chunk returns how many channels one command names.
func (l *link) chunk() int {
	if l.moved != nil {
		return 1 // All channels of a command must be in the same slot.
	}
	return channelsACommand
}

// bounded sends a command, for a limited time.
func bounded(ctx context.Context, limit time.Duration, command func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return command(ctx)
}

// receive hands on what Redis sends.
func (l *link) receive(ended context.Context, pubsub *redis.PubSub, up func()) error {
	for {
		// A timeout may strike within an answer, after which the connection can only be thrown away. That happens, as
		// every error ends it here.
		received, err := pubsub.ReceiveTimeout(ended, l.silence)
		if err != nil && l.moved != nil && misplaced(err) {
			// An answer in place of a confirmation. It doesn't say to which channel, but that one stays unconfirmed.
			l.moved()
			continue
		}
		if err != nil {
			return err
		}
		up()
		switch received := received.(type) {
		case *redis.Subscription:
			switch received.Kind {
			case "subscribe", "ssubscribe":
				l.confirm(received.Channel)
				l.receiver.confirmed(received.Channel)
			case "sunsubscribe":
				// Without being asked, a node does this when it loses a slot.
				if l.forget(received.Channel) {
					l.moved()
				}
			}
		case *redis.Message:
			l.receiver.received(received.Channel, received.Payload)
		case *redis.Pong:
		default:
			return errors.New("redis sent something that is neither a message nor a confirmation")
		}
	}
}

// misplaced says whether an error is the answer of a node of a cluster that does not serve a channel, or not now.
func misplaced(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, migrating := redis.IsAskError(err)
	return moved || migrating || redis.IsTryAgainError(err) || redis.IsClusterDownError(err)
}
