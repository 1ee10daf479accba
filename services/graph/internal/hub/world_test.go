package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
)

// never is an interval that no test reaches, for what shall not be the reason that a test passes.
const never = time.Duration(math.MaxInt64 / 4)

// world is a hub with what it stands on.
type world struct {
	testing.TB

	messages *fakeMessages
	hub      *Hub
}

func config() Config {
	return Config{HeadInterval: never, QueueBytes: 256 << 10, ReplayPage: 500, ConfirmWait: time.Second}
}

// inBubble runs a test in a world in which time passes when everybody waits. Redis is down; the test plays it, by
// calling the hub as its receiver.
func inBubble(t *testing.T, cfg Config, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rdb := redis.NewClient(&redis.Options{
			Addr: "127.0.0.1:1",
			// Looks up the address otherwise, outside the bubble.
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
			Dialer: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("Redis is down")
			},
			MaxRetries:    -1,
			DialerRetries: 1,
		})
		w := newWorld(t, cfg, rdb)
		defer func() {
			if err := rdb.Close(); err != nil {
				t.Error(err)
			}
		}()
		defer w.run()()
		test(t, w)
	})
}

func newWorld(t testing.TB, cfg Config, rdb redis.UniversalClient) *world {
	m := newFakeMessages()
	return &world{TB: t, messages: m, hub: New(cfg, rdb, m, slog.New(slog.DiscardHandler))}
}

// run starts the hub, and returns what stops it and waits for that.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.hub.Run(ctx); err != nil {
			w.Errorf("Run: %v", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// user makes a user with a token for an hour.
func (w *world) user() identity.Identity {
	return w.messages.signIn(ids.New(), time.Hour)
}

// subscribe opens a subscription that must succeed, and is closed at the test's end.
func (w *world) subscribe(id identity.Identity, after string) *reader {
	w.Helper()
	s, err := w.open(context.Background(), id, after)
	if err != nil {
		w.Fatalf("Subscribe: %v", err)
	}
	return s
}

// hint plays Redis: it hands an envelope to the hub.
func (w *world) hint(env *eventsv1.Envelope) {
	w.Helper()
	w.hub.received(encode(w, env))
}

// commit appends messages to a user's log, without hints.
func (w *world) commit(user ids.ID, n int) {
	for range n {
		w.messages.commit(user, "hello")
	}
}

// take returns the numbers of the next n events, which must come within a minute.
func (w *world) take(s *reader, n int) []int64 {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var seqs []int64
	for range n {
		e, err := s.Next(ctx)
		if err != nil {
			w.Fatalf("Next after %v: %v", seqs, err)
		}
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

// wantNext takes as many events as there are numbers, which must be those.
func (w *world) wantNext(s *reader, want ...int64) {
	w.Helper()
	if got := w.take(s, len(want)); !slices.Equal(got, want) {
		w.Fatalf("got the events %v, want %v", got, want)
	}
}

// wantNothing asserts, in a bubble, that no event comes for a minute.
func (w *world) wantNothing(s *reader) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if e, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		w.Fatalf("got the event %d and the error %v, want none for a minute", e.Seq, err)
	}
}

// wantEnd asserts that the subscription has no more events and ends with an error of a kind.
func (w *world) wantEnd(s *reader, want errs.Kind) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := s.Next(ctx)
	e, ok := errs.As(err)
	if !ok || e.Kind != want {
		w.Fatalf("Next: %v, want an error of the kind %v", err, want)
	}
	if _, again := s.Next(ctx); !errors.Is(again, err) {
		w.Fatalf("Next after the end: %v, want %v again", again, err)
	}
}

// channelOf returns the user's Redis channel.
func channelOf(id identity.Identity) string { return api.UserChannel(id.UserID.String()) }

// span returns the numbers from first to last.
func span(first, last int64) []int64 {
	var seqs []int64
	for seq := first; seq <= last; seq++ {
		seqs = append(seqs, seq)
	}
	return seqs
}

// checkHistory says what is wrong with the events that a subscription yielded: it began after a place from lowest to
// highest, and must have got the messages after it, once, in order, and all of them if it is complete.
func checkHistory(m *fakeMessages, user ids.ID, lowest, highest int64, got []int64, complete bool) error {
	var err error
	for start := lowest; start <= highest; start++ {
		want := m.messagesAfter(user, start)
		switch {
		case len(got) > len(want):
			err = fmt.Errorf("after %d: %d events, but there are only %d: %v", start, len(got), len(want), got)
		case !slices.Equal(got, want[:len(got)]):
			i := 0
			for got[i] == want[i] {
				i++
			}
			err = fmt.Errorf("after %d: the %dth event is %d, want %d", start, i+1, got[i], want[i])
		case complete && len(got) < len(want):
			err = fmt.Errorf("after %d: %d of %d events came, without %d", start, len(got), len(want), want[len(got)])
		default:
			return nil
		}
	}
	return err
}
