package hub

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/protobuf/proto"

	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/fault"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
)

// Fault points. In a build with the tag faults they break one protection each, so that a test of the whole system can
// show that it would notice. In a normal build they do nothing.
const (
	// faultHint loses a hint on its way from Redis.
	faultHint = "hub.hint"
	// faultGapCheck takes a hint for the next event although events before it are missing.
	faultGapCheck = "hub.skip-gap-check"
	// faultHeadCheck never compares heads.
	faultHeadCheck = "hub.skip-head-check"
	// faultReplay makes a subscription live before it has replayed what comes before, which it then takes for old.
	faultReplay = "hub.live-before-replay"
)

const (
	// gapPatience is how long a hint that came before its predecessors waits for them. Those of messages that are sent at
	// the same time overtake each other on the way to Redis, and to read the log for each would be to read it all the time.
	gapPatience = 25 * time.Millisecond
	// maxAhead is how many hints wait at most.
	maxAhead = 64
)

// eventOverhead is what an event in a list costs beside its encoded size, roughly.
const eventOverhead = 256

// closedChannel is a channel that is closed.
var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// feed is what a process knows of one user's log.
type feed struct {
	user    ids.ID
	channel string
	opened  time.Time
	// limit bounds the bytes of the list that one subscription keeps.
	limit   int
	metrics *metrics

	// reads joins reads of the same page, since subscriptions that are live miss the same events at the same time.
	reads singleflight.Group

	mu sync.Mutex
	// confirmed is closed when Redis has first confirmed the channel.
	confirmed chan struct{}
	subs      []*Subscription
	// epoch is the log's, nil until a subscription has read it. Until then nothing is known of the log.
	epoch []byte
	// head is the number of the newest event known to exist.
	head int64
	// tail is the end of the list: the node that event head+1 will fill. Subscriptions hold the list from their own
	// places on, so what all have read is garbage.
	tail *node
	// size is the sum of the bytes ever appended to the list.
	size int64
	// ahead has the hints that wait for their predecessors, by their numbers, and waiting is set while a timer runs that
	// gives these up.
	ahead   map[int64]*eventsv1.Envelope
	waiting bool
	// early counts the hints and confirmations that came before anything was known of the log.
	early int
}

// node is a link of a feed's list.
type node struct {
	// event is nil in the node at the end, which is yet to be filled.
	event     *messagesv1.Event
	committed time.Time
	// offset is the sum of the bytes appended before this node.
	offset int64
	// seq is the number of the event that the node is for.
	seq  int64
	next *node
}

func newFeed(user ids.ID, channel string, limit int, m *metrics) *feed {
	return &feed{
		user:      user,
		channel:   channel,
		opened:    time.Now(),
		limit:     limit,
		metrics:   m,
		confirmed: make(chan struct{}),
	}
}

func (f *feed) add(s *Subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.index = len(f.subs)
	f.subs = append(f.subs, s)
}

func (f *feed) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs) == 0
}

// confirm notes that Redis sends the channel from now on, and says whether the log must be compared, since hints before
// this moment may have been lost. The first confirmation is no reason: subscriptions read the log after it.
func (f *feed) confirm() (compare bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.confirmed != closedChannel {
		close(f.confirmed)
		// There is a feed for each user online, and no need for as many closed channels.
		f.confirmed = closedChannel
	}
	if f.epoch == nil {
		f.early++
		return false
	}
	return true
}

// awaitConfirmation waits until Redis has confirmed the channel once, the deadline passes or ctx ends.
func (f *feed) awaitConfirmation(ctx context.Context, deadline time.Time) error {
	f.mu.Lock()
	confirmed := f.confirmed
	f.mu.Unlock()
	if confirmed == closedChannel {
		return nil
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-confirmed:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pin makes the subscription keep the list from its present end on, so that whoever reads the log now meets it. The
// result is for join.
func (f *feed) pin(s *Subscription) (early int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.at = f.tail
	return f.early
}

// join puts a subscription that is being opened in its place, which was read after pin returned early. It returns false
// when the log that the place is in is not the one that the feed follows. Unsure means that the log has to be compared:
// something happened while it was read, before the feed could make anything of it.
func (f *feed) join(s *Subscription, p place, early int) (joined, unsure bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.err != nil {
		return false, false, s.err
	}
	if f.epoch == nil {
		f.epoch = p.epoch
		f.head = p.head
		f.tail = &node{seq: f.head + 1, offset: f.size}
		unsure = f.early != early
	} else if !bytes.Equal(f.epoch, p.epoch) {
		return false, false, nil
	}
	s.epoch = p.epoch
	s.seq = p.first
	s.replayTo = p.head
	s.established = true
	f.accept(s, p.page)
	if fault.Dropped(faultReplay) {
		s.page, s.seq, s.at = page{}, f.head, f.tail
	}
	return true, unsure, nil
}

// learn takes note of a page that a subscription has read, unless that has ended meanwhile.
func (f *feed) learn(s *Subscription, p page) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.err == nil {
		f.accept(s, p)
	}
}

// accept gives a page to the subscription that read it, and to the feed what is new to it. It needs mu.
func (f *feed) accept(s *Subscription, p page) {
	s.page = p
	for _, e := range p.events {
		if e.GetSeq() == f.head+1 {
			f.append(e, sentAt(e))
		}
	}
	f.attach(s, p.last)
}

// attach lets the subscription keep the list exactly when no event lies between its place, or the end of its page, and
// what it would keep. It needs mu.
func (f *feed) attach(s *Subscription, place int64) {
	switch {
	case s.at == nil && place >= f.head:
		s.at = f.tail
	case s.at != nil && place < s.at.seq-1:
		s.at = nil
	}
}

// hint takes an event from Redis, and says whether the log must be compared.
func (f *feed) hint(env *eventsv1.Envelope) (compare bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.epoch == nil {
		f.early++
		return false
	}
	if !bytes.Equal(env.GetEpoch(), f.epoch) {
		// Either the log has been restored or the hint is a very old one. The log knows.
		return true
	}
	e := env.GetEvent()
	switch {
	case e.GetSeq() <= f.head:
		// A repeat, or one that has been overtaken.
	case e.GetSeq() == f.head+1, fault.Dropped(faultGapCheck):
		f.append(e, time.UnixMicro(env.GetCommittedAtUs()))
	case len(f.ahead) == maxAhead:
		f.giveUp(e.GetSeq())
	default:
		f.wait(env)
	}
	return false
}

// wait keeps a hint until its predecessors have come. It needs mu.
func (f *feed) wait(env *eventsv1.Envelope) {
	if f.ahead == nil {
		f.ahead = make(map[int64]*eventsv1.Envelope, 1)
	}
	f.ahead[env.GetEvent().GetSeq()] = env
	if f.waiting {
		return
	}
	f.waiting = true
	time.AfterFunc(gapPatience, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.waiting = false
		if len(f.ahead) > 0 {
			f.giveUp(0)
		}
	})
}

// giveUp takes what is missing for lost: it is read from the log, up to seq and whatever waits. It needs mu.
func (f *feed) giveUp(seq int64) {
	for waiting := range f.ahead {
		seq = max(seq, waiting)
	}
	f.raise(seq)
}

// follow appends the hints that waited for the event that is the head now. It needs mu.
func (f *feed) follow() {
	for seq := range f.ahead {
		if seq <= f.head {
			delete(f.ahead, seq)
		}
	}
	if env := f.ahead[f.head+1]; env != nil {
		f.append(env.GetEvent(), time.UnixMicro(env.GetCommittedAtUs()))
	}
	if len(f.ahead) == 0 {
		f.ahead = nil
	}
}

// compare takes the log's head as the messages service tells it. It returns false when the epoch has changed.
func (f *feed) compare(head int64, epoch []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.epoch == nil {
		return true
	}
	if !bytes.Equal(f.epoch, epoch) {
		return false
	}
	// A lower head was read before the newest hints came, or from a replica that lags.
	if head > f.head {
		f.raise(head)
	}
	return true
}

// append adds the next event to the list. It needs mu.
func (f *feed) append(e *messagesv1.Event, committed time.Time) {
	f.head = e.GetSeq()
	f.size += int64(proto.Size(e)) + eventOverhead
	filled := f.tail
	f.tail = &node{seq: f.head + 1, offset: f.size}
	filled.event, filled.committed, filled.next = e, committed, f.tail
	for _, s := range f.subs {
		if s.at != nil && f.size-s.at.offset > int64(f.limit) {
			s.at = nil
			f.metrics.overflows.Add(context.Background(), 1)
		}
		s.wake()
	}
	if len(f.ahead) > 0 {
		f.follow()
	}
}

// raise notes that events exist which are not in the list. The list starts anew after them, and whoever needs them
// reads the log. It needs mu.
func (f *feed) raise(head int64) {
	f.metrics.gaps.Add(context.Background(), 1)
	f.head = head
	f.tail = &node{seq: head + 1, offset: f.size}
	for _, s := range f.subs {
		s.at = nil
		s.wake()
	}
	if len(f.ahead) > 0 {
		f.follow()
	}
}

// newest returns the identity with the valid token that lasts longest, among those that messages has not refused.
// There is none when everybody's token has expired.
func (f *feed) newest(now time.Time) (id identity.Identity, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.subs {
		if s.valid(now) && (!ok || s.identity.ExpiresAt.After(id.ExpiresAt)) {
			id, ok = s.identity, true
		}
	}
	return id, ok
}

// refuse notes that messages does not accept a token.
func (f *feed) refuse(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.subs {
		if s.identity.Token == token {
			s.refused = true
		}
	}
}

// endInvalid ends the established subscriptions whose tokens are not valid.
func (f *feed) endInvalid(now time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range slices.Clone(f.subs) {
		if s.established && !s.valid(now) {
			f.end(s, err)
		}
	}
}

// endEpoch ends the established subscriptions and forgets the log. Those that are being opened read it anew.
func (f *feed) endEpoch(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range slices.Clone(f.subs) {
		s.at = nil
		if s.established {
			f.end(s, err)
		}
	}
	f.epoch, f.head, f.tail, f.ahead = nil, 0, nil, nil
}

// endAll ends every subscription.
func (f *feed) endAll(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range slices.Clone(f.subs) {
		f.end(s, err)
	}
}

// endOne ends one subscription, unless it has ended.
func (f *feed) endOne(s *Subscription, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(s, err)
}

// end ends a subscription: its next call of Take returns err. Whoever calls it unregisters the feed afterwards. It
// needs mu.
func (f *feed) end(s *Subscription, err error) {
	if s.err != nil {
		return
	}
	last := f.subs[len(f.subs)-1]
	f.subs[s.index], last.index = last, s.index
	f.subs[len(f.subs)-1] = nil
	f.subs = f.subs[:len(f.subs)-1]
	s.err = err
	s.at = nil
	if s.ended != nil {
		close(s.ended)
	}
	s.wake()
}

// endOf returns a channel that is closed when the subscription ends.
func (f *feed) endOf(s *Subscription) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.err != nil {
		return closedChannel
	}
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	return s.ended
}

// queued returns how many subscriptions there are and how many bytes of the list they keep, counted once for each.
func (f *feed) queued() (subscriptions int, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.subs {
		if s.at != nil {
			bytes += f.size - s.at.offset
		}
	}
	return len(f.subs), bytes
}

// sentAt returns when the event's message was stored; the log does not tell the moment of the commit.
func sentAt(e *messagesv1.Event) time.Time {
	if m := e.GetMessage(); m != nil {
		return time.UnixMicro(m.GetSentAtUs())
	}
	return time.Time{}
}
