// Package hub turns Redis hints and each user's event log into subscriptions.
//
// Guaranteed, whatever Redis, the network or a pod of the messages service does: a [Subscription] yields every message
// event after the place where it began, once, in the order of the user's log, and nothing else. When it cannot go on,
// it says so with an error, and the cursor of the last event that it yielded is where another one, at any process,
// goes on. What ends a subscription: a cursor that retention has passed (CURSOR_EXPIRED), a log that was restored from
// a backup (CURSOR_INVALID), no token left that is valid (UNAUTHENTICATED), and the end of the process (UNAVAILABLE).
// A slow reader does not: it falls back to reading the log.
//
// Not guaranteed is when. An event is usually delivered as soon as its hint arrives. A lost hint is noticed by the
// next one, which leaves a gap in the numbers, or by the comparison of heads, within [Config.HeadInterval] of a
// working messages service. While messages cannot be reached, nothing that has no hint is delivered.
//
// # How it works
//
// There is one feed a user, whatever the number of the user's subscriptions. It knows the log's head, that is the
// number of the newest event known to exist, and keeps a list of the events that arrived as hints, without gaps up to
// the head. The list is only as long as its slowest reader needs, within a bound of bytes.
//
// A subscription is a place in the log. While its next event is in the list, it takes it from there: it is live. When
// it is not, since the client resumes from an older cursor, a hint was lost or the client was too slow for the list,
// it reads the log, page by page and only as fast as its own reader goes, having noted the end of the list first, so
// that the last page meets the list. There is no other way for an event to get in, so no state of Redis and no order
// of hints can make a gap: hints that cannot be appended, nor within a moment after those that they have overtaken, only
// raise the head, and a head above a subscription's place makes it read.
//
// No goroutine belongs to a feed or to a subscription. The hub has one that compares heads, and two for each connection
// to Redis, which receive and tell Redis what to send: there is one connection, or one a primary in a cluster, where two
// more see to it that each channel is asked of the right one.
package hub

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chatapp.dev/api"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/run"
)

// maxPage is the most events that one call of ReadLog returns.
const maxPage = 500

// Config are the hub's settings.
type Config struct {
	// HeadInterval bounds how long an event can go unnoticed when its hint was lost. Each comparison costs one call of
	// the messages service for every thousand users online.
	HeadInterval time.Duration `default:"3s" help:"How often to compare online users' logs with what was delivered."`
	// QueueBytes bounds the memory of a subscription whose reader is slow.
	QueueBytes int `default:"262144" help:"Bytes of events to keep for a slow subscription, which then reads the log."`
	// ReplayPage bounds one read of the log.
	ReplayPage int32 `default:"500" help:"Most events to read from the log at once: 1 to 500."`
	// ConfirmWait bounds how long a new subscription waits for Redis. Without the confirmation it starts all the same,
	// and the comparison of heads finds what Redis does not send.
	ConfirmWait time.Duration `default:"1s" help:"How long a new subscription waits for Redis."`
}

// Validate refuses settings that cannot work.
func (c *Config) Validate() error {
	switch {
	case c.HeadInterval <= 0:
		return run.Invalid(&c.HeadInterval, "must be more than 0")
	case c.QueueBytes <= 0:
		return run.Invalid(&c.QueueBytes, "must be more than 0")
	case c.ReplayPage < 1 || c.ReplayPage > maxPage:
		return run.Invalid(&c.ReplayPage, "must be 1 to %d", maxPage)
	case c.ConfirmWait < 0:
		return run.Invalid(&c.ConfirmWait, "must not be negative")
	}
	return nil
}

// Hub serves the subscriptions of one process.
type Hub struct {
	cfg      Config
	messages messagesv1.MessagesServiceClient
	log      *slog.Logger
	metrics  *metrics
	bus      bus
	due      dueFeeds

	// ctx ends when the hub closes, and with it the calls that the hub makes for several subscriptions at once.
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	// feeds has the feeds by the names of their Redis channels. A feed stays while it has a subscription.
	feeds map[string]*feed
}

// New returns a hub on the given Redis and the given messages service, whose client passes on the token of the
// context's identity. It makes no connection. [Hub.Run] must run for subscriptions to go on.
func New(cfg Config, rdb redis.UniversalClient, messages messagesv1.MessagesServiceClient, log *slog.Logger) *Hub {
	h := &Hub{
		cfg:      cfg,
		messages: messages,
		log:      log,
		due:      newDueFeeds(),
		feeds:    make(map[string]*feed),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.bus = newBus(rdb, log, h)
	h.metrics = newMetrics(h)
	return h
}

// Run receives hints and compares heads until ctx ends, and closes the hub then. It returns nil.
func (h *Hub) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Close ends Run as Run's end closes.
	stop := context.AfterFunc(h.ctx, cancel)
	defer stop()

	var tasks sync.WaitGroup
	tasks.Go(func() { h.bus.run(ctx) })
	tasks.Go(func() { h.compareHeads(ctx) })
	<-ctx.Done()
	h.Close()
	tasks.Wait()
	return nil
}

// Close ends every subscription with UNAVAILABLE, and Run. Later subscriptions are refused. It may be called
// repeatedly.
func (h *Hub) Close() {
	h.cancel()
	h.mu.Lock()
	h.closed = true
	feeds := h.feeds
	h.feeds = make(map[string]*feed)
	h.mu.Unlock()

	for _, f := range feeds {
		f.endAll(errClosing())
	}
	h.metrics.close()
}

func errClosing() error {
	return errs.New(errs.Unavailable, "this server is shutting down; resume from the last cursor on another")
}

// Subscribe opens a subscription to the user's log: after the cursor, or from now on when it is empty. It returns when
// the subscription is established: every event after the cursor, or after this moment, will be yielded.
//
// The subscription's reader is woken by calls of wake, from any goroutine and already before Subscribe returns. It must
// not block, nor call the subscription: it is for noting that there may be something to take.
//
// Errors are *errs.Error: CursorInvalid and CursorExpired for the cursor, Unauthenticated for the token, Unavailable
// when the log cannot be read or ctx ended.
func (h *Hub) Subscribe(
	ctx context.Context, id identity.Identity, after string, wake func(),
) (*Subscription, error) {
	s, err := h.register(id, wake)
	if err != nil {
		return nil, err
	}
	if err := h.establish(ctx, s, after); err != nil {
		s.Close()
		if e, ok := errs.As(err); ok {
			return nil, e
		}
		return nil, errs.Wrap(errs.KindOf(err), err, "the subscription could not be opened")
	}
	if after != "" {
		h.metrics.resumes.Add(ctx, 1)
	}
	return s, nil
}

// register adds a subscription to its user's feed, so that hints are kept from now on, and makes the feed if there is
// none.
func (h *Hub) register(id identity.Identity, wake func()) (*Subscription, error) {
	channel := api.UserChannel(id.UserID.String())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosing()
	}
	f := h.feeds[channel]
	if f == nil {
		f = newFeed(id.UserID, channel, h.cfg.QueueBytes, h.metrics)
		h.feeds[channel] = f
		// Even if an earlier feed of the user was closed so recently that Redis has not been told, the channel is
		// subscribed again: the confirmation is what the new feed waits for.
		h.bus.changed(channel)
	}
	s := newSubscription(h, f, id, wake)
	f.add(s)
	return s, nil
}

// unregister forgets the feed if its last subscription is gone.
func (h *Hub) unregister(f *feed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// A subscription may have been added since, or another feed may be in its place.
	if f.empty() && h.feeds[f.channel] == f {
		delete(h.feeds, f.channel)
		h.bus.changed(f.channel)
	}
}

// establish finds the subscription's place in the log.
func (h *Hub) establish(ctx context.Context, s *Subscription, after string) error {
	f := s.feed
	if err := f.awaitConfirmation(ctx, f.opened.Add(h.cfg.ConfirmWait)); err != nil {
		return err
	}
	for {
		early := f.pin(s)
		begin, err := h.readPlace(ctx, s, after)
		if err != nil {
			return err
		}
		joined, unsure, err := f.join(s, begin, early)
		if err != nil {
			return err
		}
		if !joined {
			// The feed and the log disagree about the epoch. Which of the two is outdated shows when the log is read
			// again; the feed's subscriptions cannot go on in either case.
			h.endEpoch(f)
			continue
		}
		if unsure {
			h.due.add(f)
		}
		s.limit = s.limitAfter(begin.page)
		return nil
	}
}

// place is where a subscription begins.
type place struct {
	page
	epoch []byte
	// head is the log's head when it was read.
	head int64
}

// readPlace checks the cursor and reads what follows it, with the subscriber's own token.
func (h *Hub) readPlace(ctx context.Context, s *Subscription, after string) (place, error) {
	ctx = identity.With(ctx, s.identity)
	if after == "" {
		resp, err := h.messages.GetCursor(ctx, &messagesv1.GetCursorRequest{})
		if err != nil {
			return place{}, err
		}
		head := resp.GetHead()
		return place{page: page{first: head, last: head}, epoch: resp.GetEpoch(), head: head}, nil
	}
	resp, err := h.messages.ReadLog(ctx, &messagesv1.ReadLogRequest{
		From:  &messagesv1.ReadLogRequest_Cursor{Cursor: after},
		Limit: s.limit,
	})
	if err != nil {
		return place{}, err
	}
	// The log has no gaps, so the cursor's own number follows from the page.
	first := resp.GetLastSeq() - int64(len(resp.GetEvents()))
	p, err := newPage(first, resp)
	if err != nil {
		return place{}, err
	}
	return place{page: p, epoch: resp.GetEpoch(), head: resp.GetHead()}, nil
}

// endEpoch ends the feed's subscriptions after the log was restored from a backup: their places mean nothing any more.
func (h *Hub) endEpoch(f *feed) {
	h.log.Warn("the epoch of a user's log has changed; its subscriptions end", userOf(f.user))
	f.endEpoch(errs.New(errs.CursorInvalid, "the log was restored; fetch everything again"))
	h.unregister(f)
}

// feedOf returns the feed on a Redis channel, if a subscription is open.
func (h *Hub) feedOf(channel string) *feed {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.feeds[channel]
}

// allFeeds returns every feed.
func (h *Hub) allFeeds() []*feed {
	h.mu.Lock()
	defer h.mu.Unlock()
	feeds := make([]*feed, 0, len(h.feeds))
	for _, f := range h.feeds {
		feeds = append(feeds, f)
	}
	return feeds
}

// wanted says whether Redis shall send a channel. It implements receiver.
func (h *Hub) wanted(channel string) bool { return h.feedOf(channel) != nil }

// channels returns all that Redis shall send. It implements receiver.
func (h *Hub) channels() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	channels := make([]string, 0, len(h.feeds))
	for channel := range h.feeds {
		channels = append(channels, channel)
	}
	return channels
}

// userOf is the user's id in a log line.
func userOf(id ids.ID) slog.Attr { return slog.Any("user", id) }
