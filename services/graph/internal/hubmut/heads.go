package hub

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/fault"
	"chatapp.dev/internal/platform/ids"
)

const (
	// headsACall is the most tokens that one call of BatchGetLogHeads takes.
	headsACall = 1000
	// headCalls is how many of these calls are under way at once.
	headCalls = 4
	// headsTimeout bounds one of them, and headsRetry is the first pause after one has failed.
	headsTimeout = 2 * time.Second
	headsRetry   = 100 * time.Millisecond
)

// received takes a hint from Redis. It implements receiver.
func (h *Hub) received(channel, payload string) {
	f := h.feedOf(channel)
	if f == nil || fault.Dropped(faultHint) {
		return
	}
	var env eventsv1.Envelope
	if err := proto.Unmarshal([]byte(payload), &env); err != nil {
		h.log.Error("a hint cannot be decoded", userOf(f.user), errAttr(err))
		return
	}
	if !bytes.Equal(env.GetUserId(), f.user.Bytes()) || env.GetEvent() == nil {
		h.log.Error("a hint on a user's channel is not for that user or empty", userOf(f.user))
		return
	}
	if f.hint(&env) {
		h.due.add(f)
	}
}

// confirmed takes a confirmation from Redis. It implements receiver.
func (h *Hub) confirmed(channel string) {
	if f := h.feedOf(channel); f != nil && f.confirm() {
		h.due.add(f)
	}
}

// dueFeeds are the feeds to be compared with the log now, and not only when all are.
type dueFeeds struct {
	// wake has an item when feeds is not empty.
	wake chan struct{}

	mu    sync.Mutex
	feeds map[*feed]struct{}
}

func newDueFeeds() dueFeeds {
	return dueFeeds{wake: make(chan struct{}, 1), feeds: make(map[*feed]struct{})}
}

func (d *dueFeeds) add(f *feed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.feeds[f] = struct{}{}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// take returns the feeds and forgets them.
func (d *dueFeeds) take() []*feed {
	d.mu.Lock()
	defer d.mu.Unlock()
	feeds := make([]*feed, 0, len(d.feeds))
	for f := range d.feeds {
		feeds = append(feeds, f)
	}
	clear(d.feeds)
	return feeds
}

// compareHeads compares every feed's head with the log at the interval, and those that are due at once, until ctx ends.
// It is what finds an event whose hint was lost when no other follows.
func (h *Hub) compareHeads(ctx context.Context) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = min(headsRetry, h.cfg.HeadInterval)
	pause.MaxInterval = h.cfg.HeadInterval
	timer := time.NewTimer(jittered(h.cfg.HeadInterval))
	defer timer.Stop()
	for {
		var feeds []*feed
		all := false
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			h.due.take()
			feeds, all = h.allFeeds(), true
		case <-h.due.wake:
			feeds = h.due.take()
		}
		if !fault.Dropped(faultHeadCheck) {
			if err := h.compare(ctx, feeds); err != nil {
				if ctx.Err() != nil {
					return
				}
				h.log.WarnContext(ctx, "comparing users' logs failed and will be repeated", errAttr(err))
				// Then all of them, since those that were due are among them.
				timer.Reset(min(pause.NextBackOff(), h.cfg.HeadInterval))
				continue
			}
		}
		if all {
			pause.Reset()
			timer.Reset(jittered(h.cfg.HeadInterval))
		}
	}
}

// jittered returns a duration within a tenth of d, so that processes do not ask in step.
func jittered(d time.Duration) time.Duration {
	return d*9/10 + rand.N(d/5+1)
}

// compare compares feeds with the log. It returns one of the errors, having tried all.
func (h *Hub) compare(ctx context.Context, feeds []*feed) error {
	var calls errgroup.Group
	calls.SetLimit(headCalls)
	for batch := range slices.Chunk(feeds, headsACall) {
		calls.Go(func() error { return h.compareBatch(ctx, batch) })
	}
	return calls.Wait()
}

// compareBatch compares as many feeds as fit into one call.
func (h *Hub) compareBatch(ctx context.Context, batch []*feed) error {
	now := time.Now()
	asked := make(map[ids.ID]*feed, len(batch))
	tokens := make(map[ids.ID]string, len(batch))
	req := &messagesv1.BatchGetLogHeadsRequest{AccessTokens: make([]string, 0, len(batch))}
	for _, f := range batch {
		id, ok := f.newest(now)
		if !ok {
			// Nothing can be learned any more about this user's log, and to wait in silence would be to lose events.
			h.endInvalid(f)
			continue
		}
		asked[f.user] = f
		tokens[f.user] = id.Token
		req.AccessTokens = append(req.AccessTokens, id.Token)
	}
	if len(asked) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, headsTimeout)
	defer cancel()
	h.metrics.headCalls.Add(ctx, 1)
	resp, err := h.messages.BatchGetLogHeads(ctx, req)
	if err != nil {
		return err
	}
	for _, head := range resp.GetHeads() {
		user, err := ids.FromBytes(head.GetUserId())
		if err != nil {
			return err
		}
		f := asked[user]
		if f == nil {
			continue
		}
		delete(asked, user)
		if !f.compare(head.GetHead(), resp.GetEpoch()) {
			h.endEpoch(f)
		}
	}
	for user, f := range asked {
		// Its token did not verify. Another of the user's may; if there is none, the next round ends the feed.
		h.log.WarnContext(ctx, "a token was refused when comparing logs", userOf(user))
		f.refuse(tokens[user])
		h.due.add(f)
	}
	return nil
}
