package hub

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/proto"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
)

const (
	// firstPage is how many events to read while nothing is known of their size. It is small since the longest
	// messages make 1 MiB of it, and whole pages of them would be more than a gRPC message may hold.
	firstPage = 64
	// readTimeout bounds one read of the log, which no caller's deadline bounds.
	readTimeout = 5 * time.Second
	// readRetry and readRetryMax are the pauses before a failed read is repeated.
	readRetry    = 20 * time.Millisecond
	readRetryMax = time.Second
)

// Event is a message event of a user's log.
type Event struct {
	// Seq is the event's number in the log. Numbers ascend, with gaps where the log has events of other kinds.
	Seq int64
	// Cursor is where another subscription goes on after this event.
	Cursor string
	// Message is shared by all who receive it and must not be changed.
	Message *messagesv1.Message
	// CommittedAt is when the event was committed by the clock of the process that did it, or, when the event had to be
	// read from the log, when the message was stored.
	CommittedAt time.Time
	// Replayed tells that the event was in the log already when the subscription was opened.
	Replayed bool
}

// page is a part of the log: the events after first up to last, without gaps.
type page struct {
	first, last int64
	events      []*messagesv1.Event
	// size is the number of bytes of the encoded events.
	size int
}

// newPage checks what the messages service returned for the events after first. Everything that a subscription
// guarantees rests on the log's numbers.
func newPage(first int64, resp *messagesv1.ReadLogResponse) (page, error) {
	p := page{first: first, last: resp.GetLastSeq(), events: resp.GetEvents()}
	for i, e := range p.events {
		if e.GetSeq() != first+1+int64(i) {
			return page{}, fmt.Errorf("the log has event %d in the place of %d", e.GetSeq(), first+1+int64(i))
		}
		p.size += proto.Size(e)
	}
	if p.last != first+int64(len(p.events)) {
		return page{}, fmt.Errorf("a page of %d events after %d claims to end at %d", len(p.events), first, p.last)
	}
	return p, nil
}

// Subscription is one reader's place in a user's log. See the package comment for what it guarantees.
//
// Nothing waits in it. Its reader calls Take until there is no more, and then nothing until it is woken; when its place
// is behind what the process holds, it calls Read, which takes as long as the messages service does.
type Subscription struct {
	hub  *Hub
	feed *feed
	// wake tells the reader to look again. It is called with feed.mu held.
	wake func()

	// These belong to the reader, and to Subscribe before.

	// limit is how many events to read next.
	limit int32
	// epoch is that of the log which the place is in.
	epoch []byte
	// replayTo is the log's head when the subscription was opened.
	replayTo int64

	// The rest is guarded by feed.mu. Only the reader changes seq and page.

	identity identity.Identity
	// index is the place among the feed's subscriptions.
	index int
	// ended is closed when err is set. It is nil until the log is read.
	ended chan struct{}
	// established is set when the subscription has its place.
	established bool
	// refused is set when messages did not accept the token.
	refused bool
	// err is why the subscription has ended.
	err error
	// seq is the number of the last event taken.
	seq int64
	// page has events that were read from the log and are to be taken first.
	page page
	// at is the next node of the feed's list to be taken after page, or nil while the list does not reach back as far
	// as needed. While a page is being read, it is where the list ended before. The list may overlap the page.
	at *node
}

func newSubscription(h *Hub, f *feed, id identity.Identity, wake func()) *Subscription {
	return &Subscription{
		hub:      h,
		feed:     f,
		wake:     wake,
		identity: id,
		limit:    min(firstPage, h.cfg.ReplayPage),
	}
}

// State says what Take has found.
type State int

const (
	// Taken means that there was an event.
	Taken State = iota
	// Idle means that everything known to exist was taken. The reader is woken when that changes.
	Idle
	// Behind means that the next event must be read from the log, by Read.
	Behind
)

// Take takes the next message event, if it is at hand. It does not block. One goroutine at a time may call Take and
// Read. Its error is an *errs.Error and final: the subscription has ended.
func (s *Subscription) Take() (Event, State, error) {
	for {
		taken, state, err := s.take()
		if err != nil || state != Taken {
			return Event{}, state, err
		}
		if m := taken.event.GetMessage(); m != nil {
			return s.deliver(taken, m), Taken, nil
		}
	}
}

// Caller returns the identity in whose name the subscription's user may be served now: that with the token that lasts
// longest among the user's subscriptions, so that one of them whose token has expired does not hold up the others.
// There is none when everybody's has.
func (s *Subscription) Caller() (identity.Identity, bool) { return s.feed.newest(time.Now()) }

// Refuse notes that a service did not accept a token: Caller will not return it again.
func (s *Subscription) Refuse(token string) { s.feed.refuse(token) }

// Renew gives the subscription a newer token of the same user.
func (s *Subscription) Renew(id identity.Identity) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.identity, s.refused = id, false
}

// Close ends the subscription. Its reader is not woken any more once Close has returned. Close may be called repeatedly
// and at any time.
func (s *Subscription) Close() {
	s.end(errs.New(errs.Unavailable, "the subscription was closed"))
}

// end makes Take return err, unless the subscription has ended before.
func (s *Subscription) end(err error) {
	s.feed.endOne(s, err)
	s.hub.unregister(s.feed)
}

// taken is an event on its way to the reader.
type taken struct {
	event     *messagesv1.Event
	committed time.Time
}

// take takes the next event from the page or the list.
func (s *Subscription) take() (taken, State, error) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.err != nil {
		return taken{}, 0, s.err
	}
	if len(s.page.events) > 0 {
		e := s.page.events[0]
		s.page.events = s.page.events[1:]
		s.seq = e.GetSeq()
		return taken{e, sentAt(e)}, Taken, nil
	}
	s.page = page{}
	f.attach(s, s.seq)
	for s.at != nil && s.at.event != nil {
		n := s.at
		s.at = n.next
		// What the list has in common with the page was taken from there.
		if seq := n.event.GetSeq(); seq > s.seq {
			s.seq = seq
			return taken{n.event, n.committed}, Taken, nil
		}
	}
	if s.at == nil {
		return taken{}, Behind, nil
	}
	return taken{}, Idle, nil
}

// deliver makes the event for the reader.
func (s *Subscription) deliver(t taken, m *messagesv1.Message) Event {
	e := Event{
		Seq:         t.event.GetSeq(),
		Cursor:      t.event.GetCursor(),
		Message:     m,
		CommittedAt: t.committed,
		Replayed:    t.event.GetSeq() <= s.replayTo,
	}
	s.hub.metrics.delivered(context.Background(), e)
	return e
}

// Read gets the next events from the log, for Take. It returns nil when there is something new to take, which may be the
// subscription's end, and ctx's error when that ends first; then nothing is lost, and Read may be called again. Calls
// that fail for passing reasons are repeated until they succeed.
func (s *Subscription) Read(ctx context.Context) error {
	var pause *backoff.ExponentialBackOff
	ended := s.feed.endOf(s)
	for {
		s.feed.pin(s)
		p, err := s.readPage(ctx, ended)
		if err == nil && len(p.events) > 0 {
			s.feed.learn(s, p)
			s.limit = s.limitAfter(p)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch errs.KindOf(err) {
		case errs.CursorExpired:
			s.end(err)
			return nil
		case errs.CursorInvalid:
			s.end(err)
			// The epoch has changed, most likely, and the user's other subscriptions must know.
			s.hub.due.add(s.feed)
			return nil
		case errs.Unauthenticated:
			s.hub.endInvalid(s.feed)
			return nil
		}
		// Messages cannot be reached, or is a replica which has not seen the event yet. The page's size may be the
		// reason, too.
		s.limit = min(firstPage, s.hub.cfg.ReplayPage)
		if pause == nil {
			pause = backoff.NewExponentialBackOff()
			pause.InitialInterval, pause.MaxInterval = readRetry, readRetryMax
			if err != nil {
				s.hub.log.WarnContext(ctx, "a user's log cannot be read and is tried again until it can",
					userOf(s.feed.user), errAttr(err))
			}
		}
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// limitAfter chooses how many events to read after a page: as many of its kind as the queue may hold.
func (s *Subscription) limitAfter(p page) int32 {
	if len(p.events) == 0 {
		return s.limit
	}
	fit := int64(s.hub.cfg.QueueBytes) * int64(len(p.events)) / int64(p.size+len(p.events)*eventOverhead)
	return int32(max(1, min(fit, int64(s.hub.cfg.ReplayPage))))
}

// readPage reads the events after the subscription's place, or waits for another subscription's read of the same.
func (s *Subscription) readPage(ctx context.Context, ended <-chan struct{}) (page, error) {
	epoch, after, limit := s.epoch, s.seq, s.limit
	result := s.feed.reads.DoChan(string(epoch)+strconv.FormatInt(after, 10), func() (any, error) {
		return s.hub.readLog(ctx, s.feed, epoch, after, limit)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return page{}, r.Err
		}
		return r.Val.(page), nil
	case <-ended:
		return page{}, nil
	case <-ctx.Done():
		return page{}, ctx.Err()
	}
}

// readLog reads a page with the newest token of the user's subscriptions. It goes on when ctx ends, since others may
// wait for the same page.
func (h *Hub) readLog(ctx context.Context, f *feed, epoch []byte, after int64, limit int32) (page, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	stop := context.AfterFunc(h.ctx, cancel)
	defer stop()
	for {
		id, ok := f.newest(time.Now())
		if !ok {
			return page{}, errExpired()
		}
		resp, err := h.messages.ReadLog(identity.With(ctx, id), &messagesv1.ReadLogRequest{
			From:  &messagesv1.ReadLogRequest_AfterSeq{AfterSeq: after},
			Epoch: epoch,
			Limit: limit,
		})
		if errs.KindOf(err) == errs.Unauthenticated {
			f.refuse(id.Token)
			continue
		}
		if err != nil {
			return page{}, err
		}
		return newPage(after, resp)
	}
}

// endInvalid ends those of a feed's subscriptions whose tokens have expired or were refused.
func (h *Hub) endInvalid(f *feed) {
	f.endInvalid(time.Now(), errExpired())
	h.unregister(f)
}

func errExpired() error {
	return errs.New(errs.Unauthenticated, "the access token has expired or been revoked; sign in again")
}

// valid says whether the subscription's token may still be used. It needs feed.mu.
func (s *Subscription) valid(now time.Time) bool {
	return !s.refused && now.Before(s.identity.ExpiresAt)
}
