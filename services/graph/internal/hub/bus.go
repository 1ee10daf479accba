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

// receiver is what the bus works for.
type receiver interface {
	// confirmed is called when Redis has confirmed that it sends a channel from now on; repeatedly, after each
	// connection that was lost.
	confirmed(channel string)
	// received is called with what was published on a channel.
	received(channel, payload string)
	// wanted says whether the channel shall be received.
	wanted(channel string) bool
	// channels returns all channels that shall be received.
	channels() []string
}

// bus receives Redis channels over one connection, whatever their number.
//
// Nobody waits for it: changes of what is wanted are noted and sent by a goroutine of the bus' own. It looks up what is
// wanted when it sends, so a channel that is dropped and wanted again in quick succession ends up as wanted.
//
// go-redis' PubSub connects again by itself after an error, and does so out of sight when it is writing: a channel
// whose SUBSCRIBE was being written then is not received until the next reconnection. Therefore any error ends a
// PubSub here, and each has one connection at most. What may have been missed between two of them shows in the
// confirmations, which come for every channel of a new connection, even one that go-redis made by itself.
type bus struct {
	rdb      redis.UniversalClient
	log      *slog.Logger
	receiver receiver
	// The constants of the same names.
	pingInterval, silence time.Duration

	// wake has an item when dirty is not empty.
	wake chan struct{}

	mu sync.Mutex
	// dirty has the channels that became wanted or unwanted since Redis was told.
	dirty map[string]struct{}
}

func newBus(rdb redis.UniversalClient, log *slog.Logger, r receiver) *bus {
	return &bus{
		rdb:          rdb,
		log:          log,
		receiver:     r,
		pingInterval: pingInterval,
		silence:      silence,
		wake:         make(chan struct{}, 1),
		dirty:        make(map[string]struct{}),
	}
}

// changed notes that a channel has become wanted or unwanted.
func (b *bus) changed(channels ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, channel := range channels {
		b.dirty[channel] = struct{}{}
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// takeChanged returns the channels that have changed, and forgets them.
func (b *bus) takeChanged() map[string]struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := b.dirty
	b.dirty = make(map[string]struct{})
	return changed
}

// run keeps a connection until ctx ends.
func (b *bus) run(ctx context.Context) {
	lost := false
	for ctx.Err() == nil {
		err := b.connection(ctx, func() {
			if lost {
				b.log.InfoContext(ctx, "Redis is back")
				lost = false
			}
		})
		if ctx.Err() != nil {
			return
		}
		if !lost {
			b.log.WarnContext(ctx, "Redis is lost; events are found by comparing logs until it is back", errAttr(err))
			lost = true
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
func (b *bus) connection(ctx context.Context, up func()) error {
	// Without channels, Subscribe only makes the object.
	pubsub := b.rdb.Subscribe(ctx)
	b.changed(b.receiver.channels()...)

	tasks, ctx := errgroup.WithContext(ctx)
	// Closing it is what wakes Receive when sending has failed or ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = pubsub.Close() })
	defer func() {
		stop()
		_ = pubsub.Close()
	}()
	tasks.Go(func() error { return b.send(ctx, pubsub) })
	tasks.Go(func() error { return b.receive(ctx, pubsub, up) })
	return tasks.Wait()
}

// send tells Redis what is wanted, and pings.
func (b *bus) send(ctx context.Context, pubsub *redis.PubSub) error {
	ping := time.NewTicker(b.pingInterval)
	defer ping.Stop()
	// subscribed has the channels that were asked for on this connection.
	subscribed := make(map[string]struct{})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ping.C:
			if err := bounded(ctx, func(ctx context.Context) error { return pubsub.Ping(ctx) }); err != nil {
				return err
			}
		case <-b.wake:
			if err := b.sendChanged(ctx, pubsub, subscribed); err != nil {
				return err
			}
		}
	}
}

// sendChanged subscribes and unsubscribes what has changed.
func (b *bus) sendChanged(ctx context.Context, pubsub *redis.PubSub, subscribed map[string]struct{}) error {
	var subscribe, unsubscribe []string
	for channel := range b.takeChanged() {
		_, known := subscribed[channel]
		switch {
		case b.receiver.wanted(channel):
			// Even if it is subscribed: somebody new waits for the confirmation, and Redis repeats it.
			subscribe = append(subscribe, channel)
			subscribed[channel] = struct{}{}
		case known:
			unsubscribe = append(unsubscribe, channel)
			delete(subscribed, channel)
		}
	}
	for channels := range slices.Chunk(subscribe, channelsACommand) {
		err := bounded(ctx, func(ctx context.Context) error { return pubsub.Subscribe(ctx, channels...) })
		if err != nil {
			return err
		}
	}
	// Never without a channel, which would mean all of them.
	for channels := range slices.Chunk(unsubscribe, channelsACommand) {
		err := bounded(ctx, func(ctx context.Context) error { return pubsub.Unsubscribe(ctx, channels...) })
		if err != nil {
			return err
		}
	}
	return nil
}

// bounded sends a command, for a limited time.
func bounded(ctx context.Context, command func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return command(ctx)
}

// receive hands on what Redis sends.
func (b *bus) receive(ctx context.Context, pubsub *redis.PubSub, up func()) error {
	for {
		// A timeout may strike within an answer, after which the connection can only be thrown away. That happens, as
		// every error ends it here.
		received, err := pubsub.ReceiveTimeout(ctx, b.silence)
		if err != nil {
			return err
		}
		up()
		switch received := received.(type) {
		case *redis.Subscription:
			if received.Kind == "subscribe" {
				b.receiver.confirmed(received.Channel)
			}
		case *redis.Message:
			b.receiver.received(received.Channel, received.Payload)
		case *redis.Pong:
		default:
			return errors.New("redis sent something that is neither a message nor a confirmation")
		}
	}
}

func errAttr(err error) slog.Attr { return slog.Any("error", err) }
