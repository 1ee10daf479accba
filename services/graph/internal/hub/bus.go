package hub

import (
	"context"
	"log/slog"

	"github.com/redis/go-redis/v9"
)

// receiver is what a bus works for. It is the hub, or one primary's part of a cluster bus.
type receiver interface {
	// confirmed is called when Redis has confirmed that it sends a channel from now on; repeatedly, after each
	// connection that was lost and each move of the channel to another server.
	confirmed(channel string)
	// received is called with what was published on a channel.
	received(channel, payload string)
	// wanted says whether the channel shall be received.
	wanted(channel string) bool
	// channels returns all channels that shall be received.
	channels() []string
}

// bus receives Redis channels. Whatever happens to Redis, a channel that is wanted is received again sooner or later,
// and each time after something published on it may have been missed, its confirmation comes once more.
//
// Nobody waits for a bus: changes of what is wanted are noted and sent by goroutines of its own. They look up what is
// wanted when they send, so a channel that is dropped and wanted again in quick succession ends up as wanted.
type bus interface {
	// changed notes that channels have become wanted or unwanted.
	changed(channels ...string)
	// run keeps connections until ctx ends.
	run(ctx context.Context)
}

// newBus returns the bus for a client.
func newBus(rdb redis.UniversalClient, log *slog.Logger, r receiver) bus {
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		return newClusterBus(cluster, log, r)
	}
	return newLink(rdb, log, r)
}

func errAttr(err error) slog.Attr { return slog.Any("error", err) }
