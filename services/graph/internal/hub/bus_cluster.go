package hub

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// lookInterval is how often the cluster is asked which primary serves which slots, when nothing gives a reason to.
	lookInterval = 3 * time.Second
	// lookPause is the least time between two such questions, and lookTimeout bounds one.
	lookPause   = 500 * time.Millisecond
	lookTimeout = 2 * time.Second
)

// clusterBus is the bus for a Redis Cluster. Channels are sharded: what is published on one goes through the primary
// that serves its slot and no further, so that the cluster carries the more the more primaries it has. The bus has a
// link to each primary, and places every channel at one of them.
//
// Where a channel belongs changes with a failover or when slots are migrated. The bus asks the cluster when a
// connection is lost, when a node refuses a channel (MOVED) or drops one (an unsolicited SUNSUBSCRIBE, which is how it
// says that it has lost the slot), and every few seconds besides, since a node that is cut off from the others says
// nothing. Each time it compares where every channel is with where it belongs, and asks again for those that are
// unconfirmed. No single answer or event has to arrive for this to come right, and no answer has to be true: what the
// cluster says while it fails over is corrected by what it says later.
type clusterBus struct {
	rdb      *redis.ClusterClient
	log      *slog.Logger
	receiver receiver

	// wake has an item when dirty is not empty, and moved has one when there is a reason to ask the cluster.
	wake, moved chan struct{}

	// primaries has the links. It belongs to run.
	primaries map[*redis.Client]*primary

	mu sync.Mutex
	// dirty has the channels that became wanted or unwanted since they were placed.
	dirty map[string]struct{}
	// placed has the primary from which each wanted channel is received. Only run changes it.
	placed map[string]*primary
}

// primary is a link to a primary, and its receiver: it wants of what the hub wants what is placed there.
type primary struct {
	*link
	bus  *clusterBus
	stop context.CancelFunc
}

func newClusterBus(rdb *redis.ClusterClient, log *slog.Logger, r receiver) *clusterBus {
	return &clusterBus{
		rdb:       rdb,
		log:       log,
		receiver:  r,
		wake:      make(chan struct{}, 1),
		moved:     make(chan struct{}, 1),
		primaries: make(map[*redis.Client]*primary),
		dirty:     make(map[string]struct{}),
		placed:    make(map[string]*primary),
	}
}

// changed implements bus.
func (b *clusterBus) changed(channels ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, channel := range channels {
		b.dirty[channel] = struct{}{}
	}
	signal(b.wake)
}

// takeChanged returns the channels that have changed, and forgets them.
func (b *clusterBus) takeChanged() map[string]struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := b.dirty
	b.dirty = make(map[string]struct{})
	return changed
}

// signal puts an item into a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run implements bus.
func (b *clusterBus) run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	found := make(chan []*redis.Client)
	tasks.Go(func() { b.look(ctx, found) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
			for channel := range b.takeChanged() {
				b.place(ctx, channel, true)
			}
		case clients := <-found:
			b.follow(ctx, &tasks, clients)
			for _, channel := range b.receiver.channels() {
				b.place(ctx, channel, false)
			}
		}
	}
}

// look asks the cluster which primaries there are, again and again until ctx ends. The client keeps what else it is
// told, that is which slots they serve.
func (b *clusterBus) look(ctx context.Context, found chan<- []*redis.Client) {
	lost := false
	for {
		clients, err := b.askPrimaries(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !lost:
			b.log.WarnContext(ctx, "Redis is lost; events are found by comparing logs until it is back", errAttr(err))
			lost = true
		case err == nil && lost:
			b.log.InfoContext(ctx, "Redis is back")
			lost = false
		}
		if err == nil {
			select {
			case found <- clients:
			case <-ctx.Done():
				return
			}
		}
		// Not all processes at once.
		sleep(ctx, lookPause/2+rand.N(lookPause), nil)
		if !lost {
			sleep(ctx, lookInterval, b.moved)
		}
	}
}

// sleep waits for a time, or less if there is an item in early or ctx ends.
func sleep(ctx context.Context, d time.Duration, early <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-ctx.Done():
	}
}

// askPrimaries asks any node which primaries there are.
func (b *clusterBus) askPrimaries(ctx context.Context) ([]*redis.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var (
		mu      sync.Mutex
		clients []*redis.Client
	)
	// It asks before it begins, and calls the function for all at the same time.
	err := b.rdb.ForEachMaster(ctx, func(_ context.Context, client *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		clients = append(clients, client)
		return nil
	})
	return clients, err
}

// follow makes links to new primaries and ends those to former ones.
func (b *clusterBus) follow(ctx context.Context, tasks *sync.WaitGroup, clients []*redis.Client) {
	former := b.primaries
	b.primaries = make(map[*redis.Client]*primary, len(clients))
	changes := 0
	for _, client := range clients {
		p := former[client]
		if p == nil {
			p = &primary{bus: b}
			p.link = newLink(client, b.log.With(slog.String("node", client.Options().Addr)), p)
			p.link.moved = func() { signal(b.moved) }
			life, stop := context.WithCancel(ctx)
			p.stop = stop
			tasks.Go(func() { p.run(life) })
			changes++
		}
		delete(former, client)
		b.primaries[client] = p
	}
	for _, p := range former {
		p.stop()
		changes++
	}
	if changes > 0 {
		b.log.InfoContext(ctx, "the primaries of Redis Cluster were found", slog.Int("primaries", len(clients)))
	}
}

// place makes sure that a channel is received from where it belongs, if it is wanted. Again means that it is to be
// confirmed even if it has been.
func (b *clusterBus) place(ctx context.Context, channel string, again bool) {
	var next *primary
	if b.receiver.wanted(channel) {
		if next = b.locate(ctx, channel); next == nil {
			signal(b.moved) // It will be tried again after the next look.
		}
	}
	b.mu.Lock()
	last := b.placed[channel]
	if next != nil {
		b.placed[channel] = next
	} else {
		delete(b.placed, channel)
	}
	b.mu.Unlock()
	if last != nil && last != next {
		last.changed(channel)
	}
	if next != nil && (again || last != next || !next.holds(channel)) {
		next.changed(channel)
	}
}

// locate returns the primary that serves a channel, as far as that is known.
func (b *clusterBus) locate(ctx context.Context, channel string) *primary {
	if len(b.primaries) == 0 {
		return nil // Nor does the client know anything, which would ask the cluster now.
	}
	// Any node for a slot that none serves. It will refuse the channel.
	client, err := b.rdb.MasterForKey(ctx, channel)
	if err != nil {
		return nil
	}
	return b.primaries[client]
}

// confirmed implements receiver.
func (p *primary) confirmed(channel string) { p.bus.receiver.confirmed(channel) }

// received implements receiver.
func (p *primary) received(channel, payload string) { p.bus.receiver.received(channel, payload) }

// wanted implements receiver.
func (p *primary) wanted(channel string) bool {
	p.bus.mu.Lock()
	here := p.bus.placed[channel] == p
	p.bus.mu.Unlock()
	return here && p.bus.receiver.wanted(channel)
}

// channels implements receiver.
func (p *primary) channels() []string {
	p.bus.mu.Lock()
	defer p.bus.mu.Unlock()
	var channels []string
	for channel, placed := range p.bus.placed {
		if placed == p {
			channels = append(channels, channel)
		}
	}
	return channels
}
