package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
)

// chaos is a random world: writers whose hints are lost, doubled and reordered, a log that fails and stalls, and
// readers that come, go, resume anywhere and dawdle. It checks that every subscription sees exactly the message events
// after its cursor, once, in order.
type chaos struct {
	*world

	seed    uint64
	users   []identity.Identity
	events  int           // That each user's writer commits.
	pace    time.Duration // The longest pause between two of them.
	publish func(*eventsv1.Envelope)

	mu  sync.Mutex
	rng *rand.Rand
}

func newChaos(w *world, seed uint64, users, events int, pace time.Duration, publish func(*eventsv1.Envelope)) *chaos {
	c := &chaos{world: w, seed: seed, events: events, pace: pace, publish: publish, rng: rand.New(rand.NewPCG(seed, 0))}
	for range users {
		c.users = append(c.users, w.user())
	}
	return c
}

// chance is true with a probability of percent.
func (c *chaos) chance(percent int) bool { return c.pick(100) < percent }

// pick returns a number below n.
func (c *chaos) pick(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.IntN(n)
}

// nap sleeps for up to d.
func (c *chaos) nap(d time.Duration) {
	time.Sleep(time.Duration(c.pick(int(d))))
}

// disturb lets calls of the messages service fail, stall and take their time.
func (c *chaos) disturb(ctx context.Context, _ string) error {
	took := time.Duration(c.pick(int(2 * time.Millisecond)))
	switch {
	case c.chance(5):
		return errs.New(errs.Unavailable, "the log fails")
	case c.chance(2):
		took = time.Duration(c.pick(int(time.Second)))
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
	}
	return nil
}

// run lets everything happen until all has been written and read. Its result tells what a reader saw wrong.
func (c *chaos) run(readers int) error {
	c.messages.setBefore(c.disturb)
	wrong := make(chan error, len(c.users)*readers)
	var writing, reading, hints sync.WaitGroup
	written := make(chan struct{})
	for _, id := range c.users {
		writing.Go(func() { c.write(id, &hints) })
		for i := range readers {
			reading.Go(func() {
				if err := c.read(id, written, i == 0); err != nil {
					wrong <- err
				}
			})
		}
	}
	writing.Wait()
	close(written)
	reading.Wait()
	hints.Wait()
	c.messages.setBefore(nil)
	select {
	case err := <-wrong:
		return fmt.Errorf("seed %d: %w", c.seed, err)
	default:
		return nil
	}
}

// write commits a user's events, and publishes some of their hints: late, twice or out of order.
func (c *chaos) write(id identity.Identity, hints *sync.WaitGroup) {
	for range c.events {
		if c.chance(70) {
			c.nap(c.pace)
		}
		var env *eventsv1.Envelope
		if c.chance(20) {
			env = c.messages.commitRead(id.UserID)
		} else {
			env = c.messages.commit(id.UserID, strings.Repeat("x", c.pick(200)))
		}
		if c.chance(10) {
			continue // Lost.
		}
		for range 1 + c.pick(5)/4 {
			if c.chance(60) {
				c.publish(env)
				continue
			}
			hints.Go(func() {
				c.nap(3 * c.pace)
				c.publish(env)
			})
		}
	}
}

// read opens one subscription after the other until all is written, and then a last one that stays. A patient reader's
// first is its last.
func (c *chaos) read(id identity.Identity, written <-chan struct{}, patient bool) error {
	for {
		last := patient || closed(written)
		if err := c.session(id, written, last); err != nil || last {
			return err
		}
		c.nap(5 * c.pace)
	}
}

// session reads from a subscription that begins anywhere, and checks what comes: until it has all that was written, if
// it stays, or for a while.
func (c *chaos) session(id identity.Identity, written <-chan struct{}, stays bool) error {
	lowest, cursor := c.messages.head(id.UserID), ""
	if c.chance(70) {
		lowest = int64(c.pick(int(lowest) + 1))
		cursor = c.messages.cursorAt(id.UserID, lowest)
	}
	s, err := c.open(context.Background(), id, cursor)
	if errs.KindOf(err) == errs.Unavailable {
		// A client tries again.
		c.nap(c.pace)
		return c.session(id, written, stays)
	}
	if err != nil {
		return fmt.Errorf("subscribe after %d: %w", lowest, err)
	}
	defer s.Close()
	highest := lowest
	if cursor == "" {
		highest = c.messages.head(id.UserID)
	}

	var got []int64
	dawdles := c.chance(30)
	// How often it looks for an event until it leaves, and how often in vain until it despairs.
	looks, patience := c.pick(100), 20
	for {
		ctx, cancel := context.WithTimeout(context.Background(), c.hub.cfg.HeadInterval)
		e, err := s.Next(ctx)
		cancel()
		switch {
		case err == nil:
			got = append(got, e.Seq)
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		case closed(written):
			patience--
		}
		looks--
		all := checkHistory(c.messages, id.UserID, lowest, highest, got, true)
		switch {
		case stays && closed(written) && (all == nil || patience == 0):
			return all
		case !stays && (looks <= 0 || closed(written)):
			return checkHistory(c.messages, id.UserID, lowest, highest, got, false)
		}
		if dawdles {
			c.nap(c.pace)
		}
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func chaoticConfig() Config {
	return Config{
		HeadInterval: 300 * time.Millisecond,
		QueueBytes:   4000,
		ReplayPage:   7,
		ConfirmWait:  5 * time.Millisecond,
	}
}

func TestEverySubscriptionSeesExactlyWhatFollowsItsCursor(t *testing.T) {
	for seed := range uint64(60) {
		inBubble(t, chaoticConfig(), func(t *testing.T, w *world) {
			c := newChaos(w, seed, 3, 150, 4*time.Millisecond, w.hint)
			confirmations, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for confirmations.Err() == nil {
					c.nap(50 * time.Millisecond)
					w.hub.confirmed(channelOf(c.users[c.pick(len(c.users))]))
				}
			}()
			if err := c.run(4); err != nil {
				t.Error(err)
			}
			stop()
			<-done
			if n := len(w.hub.allFeeds()); n != 0 {
				t.Errorf("%d feeds are left", n)
			}
		})
		if t.Failed() {
			return
		}
	}
}
