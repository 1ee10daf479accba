package hub

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
)

func TestWithoutACursorASubscriptionIsLiveFromNow(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.commit(id.UserID, 3)
		s := w.subscribe(id, "")
		w.hint(w.messages.commit(id.UserID, "four"))
		e, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != 4 || e.Message.GetBody() != "four" || e.Cursor != w.messages.cursorAt(id.UserID, 4) || e.Replayed ||
			!e.CommittedAt.Equal(time.Now()) {
			t.Errorf("got %+v", e)
		}
		if n := w.messages.callsOf("ReadLog"); n != 0 {
			t.Errorf("the log was read %d times for an event whose hint came", n)
		}
	})
}

func TestResumeReplaysAllInOrderOnceAndThenGoesLive(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.commit(id.UserID, 2510)
		s := w.subscribe(id, w.messages.cursorAt(id.UserID, 10))
		e, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq != 11 || !e.Replayed {
			t.Errorf("the first event is %+v", e)
		}
		// Sent during the replay, one with and one without a hint, and one to show the gap.
		w.hint(w.messages.commit(id.UserID, "2511"))
		w.messages.commit(id.UserID, "2512")
		w.hint(w.messages.commit(id.UserID, "2513"))
		w.wantNext(s, span(12, 2513)...)
		w.hint(w.messages.commit(id.UserID, "2514"))
		if e, err = s.Next(t.Context()); err != nil || e.Seq != 2514 || e.Replayed {
			t.Errorf("the live event is %+v, %v", e, err)
		}
	})
}

func TestEverySubscriptionGetsEveryEvent(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id, other := w.user(), w.user()
		a, b := w.subscribe(id, ""), w.subscribe(id, "")
		stranger := w.subscribe(other, "")
		for range 10 {
			w.hint(w.messages.commit(id.UserID, "hello"))
		}
		c := w.subscribe(id, w.messages.cursorAt(id.UserID, 5))
		w.hint(w.messages.commit(id.UserID, "hello"))
		w.wantNext(a, span(1, 11)...)
		w.wantNext(b, span(1, 11)...)
		w.wantNext(c, span(6, 11)...)
		w.wantNothing(stranger)
	})
}

func TestRepeatedAndOldHintsAreDropped(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		old := w.messages.commit(id.UserID, "one")
		s := w.subscribe(id, "")
		env := w.messages.commit(id.UserID, "two")
		for range 3 {
			w.hint(env)
			w.hint(old)
		}
		w.wantNext(s, 2)
		w.wantNothing(s)
	})
}

func TestGapIsReadFromTheLog(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.hint(w.messages.commit(id.UserID, "1"))
		w.messages.commit(id.UserID, "2")
		late := w.messages.commit(id.UserID, "3")
		w.hint(w.messages.commit(id.UserID, "4"))
		w.hint(late)
		w.wantNext(s, 1, 2, 3, 4)
		w.hint(w.messages.commit(id.UserID, "5"))
		w.wantNext(s, 5)
		w.wantNothing(s)
	})
}

func TestHintsThatOvertakeEachOtherCostNoRead(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		var hints []*eventsv1.Envelope
		for range 5 {
			hints = append(hints, w.messages.commit(id.UserID, "hello"))
		}
		for _, i := range []int{2, 4, 1, 1, 0, 3} {
			w.hint(hints[i])
		}
		w.wantNext(s, 1, 2, 3, 4, 5)
		if n := w.messages.callsOf("ReadLog"); n != 0 {
			t.Errorf("the log was read %d times", n)
		}
	})
}

func TestHintsWaitForLostOnesOnlyForAMoment(t *testing.T) {
	for name, hints := range map[string]int{"one": 1, "as many as may wait": maxAhead, "more": maxAhead + 10} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), func(t *testing.T, w *world) {
				id := w.user()
				s := w.subscribe(id, "")
				w.messages.commit(id.UserID, "whose hint is lost")
				for range hints {
					w.hint(w.messages.commit(id.UserID, "hello"))
				}
				start := time.Now()
				w.wantNext(s, span(1, int64(hints)+1)...)
				if took := time.Since(start); took > gapPatience {
					t.Errorf("it took %v", took)
				}
				w.hint(w.messages.commit(id.UserID, "after it"))
				w.wantNext(s, int64(hints)+2)
			})
		})
	}
}

func TestHintsDuringACatchUpWaitForIt(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.hub.messages = lateAnswer{w.messages, func() {
			for range 5 {
				w.hint(w.messages.commit(id.UserID, "hello"))
			}
		}}
		w.messages.commit(id.UserID, "lost")
		w.hint(w.messages.commit(id.UserID, "seen"))
		w.wantNext(s, span(1, 7)...)
		w.hint(w.messages.commit(id.UserID, "hello"))
		w.wantNext(s, 8)
		if n := w.messages.callsOf("ReadLog"); n != 1 {
			t.Errorf("the log was read %d times, want once", n)
		}
	})
}

func TestWhatOneSubscriptionReadsReachesTheOthers(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		a := w.subscribe(id, "")
		w.commit(id.UserID, 3)
		b := w.subscribe(id, w.messages.cursorAt(id.UserID, 0))
		w.wantNext(a, 1, 2, 3)
		w.wantNext(b, 1, 2, 3)
		if n := w.messages.callsOf("ReadLog"); n != 1 {
			t.Errorf("the log was read %d times, want once", n)
		}
	})
}

func TestSubscriptionsOfAUserShareTheReadOfWhatTheyMiss(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.messages.setBefore(func(context.Context, string) error {
			time.Sleep(time.Millisecond)
			return nil
		})
		var readers sync.WaitGroup
		for range 20 {
			s := w.subscribe(id, "")
			readers.Go(func() { w.wantNext(s, 1, 2) })
		}
		synctest.Wait()
		w.messages.commit(id.UserID, "lost")
		w.hint(w.messages.commit(id.UserID, "seen"))
		readers.Wait()
		if n := w.messages.callsOf("ReadLog"); n != 1 {
			t.Errorf("the log was read %d times, want once for all", n)
		}
	})
}

func TestLostLastHintIsFoundByComparingHeads(t *testing.T) {
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		for seq := range int64(10) {
			sent := time.Now()
			w.messages.commit(id.UserID, "its hint is lost")
			w.wantNext(s, seq+1)
			if took := time.Since(sent); took > 5*time.Second {
				t.Errorf("it took %v of virtual time", took)
			}
		}
	})
}

func TestFailedComparisonIsRepeatedBeforeTheNextIsDue(t *testing.T) {
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		failures := 3
		w.messages.setBefore(func(_ context.Context, method string) error {
			if method == "BatchGetLogHeads" && failures > 0 {
				failures--
				return errs.New(errs.Unavailable, "not now")
			}
			return nil
		})
		sent := time.Now()
		w.messages.commit(id.UserID, "its hint is lost")
		w.wantNext(s, 1)
		if took := time.Since(sent); took > 5*time.Second {
			t.Errorf("it took %v of virtual time", took)
		}
	})
}

func TestConfirmationComparesAtOnce(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.messages.commit(id.UserID, "its hint is lost with the connection")
		w.hub.confirmed(channelOf(id))
		w.wantNext(s, 1)
	})
}

func TestHintOrConfirmationBeforeTheLogIsReadIsNotForgotten(t *testing.T) {
	tests := map[string]func(w *world, id identity.Identity){
		"hint":         func(w *world, id identity.Identity) { w.hint(w.messages.commit(id.UserID, "hello")) },
		"confirmation": func(w *world, id identity.Identity) { w.commit(id.UserID, 1); w.hub.confirmed(channelOf(id)) },
	}
	for name, happens := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), func(t *testing.T, w *world) {
				id := w.user()
				w.hub.messages = lateAnswer{w.messages, func() { happens(w, id) }}
				s := w.subscribe(id, "")
				w.wantNext(s, 1)
			})
		})
	}
}

// lateAnswer lets something happen between the reading of a log and the arrival of the answer.
type lateAnswer struct {
	*fakeMessages
	happens func()
}

func (m lateAnswer) GetCursor(
	ctx context.Context, req *messagesv1.GetCursorRequest, opts ...grpc.CallOption,
) (*messagesv1.GetCursorResponse, error) {
	resp, err := m.fakeMessages.GetCursor(ctx, req, opts...)
	m.happens()
	return resp, err
}

func (m lateAnswer) ReadLog(
	ctx context.Context, req *messagesv1.ReadLogRequest, opts ...grpc.CallOption,
) (*messagesv1.ReadLogResponse, error) {
	resp, err := m.fakeMessages.ReadLog(ctx, req, opts...)
	m.happens()
	return resp, err
}

func TestForeignAndMalformedHintsAreDropped(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id, other := w.user(), w.user()
		s := w.subscribe(id, "")
		foreign := w.messages.commit(other.UserID, "secret")
		_, payload := encode(t, foreign)
		w.hub.received(channelOf(id), payload)
		w.hub.received(channelOf(id), "\xff\xff\xff")
		w.hub.received(channelOf(id), "")
		_, empty := encode(t, &eventsv1.Envelope{UserId: id.UserID.Bytes(), Epoch: w.messages.epoch})
		w.hub.received(channelOf(id), empty)
		w.hub.received("chatapp:user:{nobody}", payload)
		w.wantNothing(s)
		w.hint(w.messages.commit(id.UserID, "hello"))
		w.wantNext(s, 1)
	})
}

func TestHintOfAnotherEpoch(t *testing.T) {
	t.Run("is dropped when the log still has the old one", func(t *testing.T) {
		inBubble(t, config(), func(t *testing.T, w *world) {
			id := w.user()
			s := w.subscribe(id, "")
			env := w.messages.commit(id.UserID, "1")
			stale := proto.CloneOf(env)
			stale.Epoch = []byte("epoch--0")
			stale.Event.Seq = 7
			w.hint(stale)
			w.wantNext(s, 1) // Found by the comparison that the hint caused.
			w.hint(env)
			w.wantNothing(s)
		})
	})
	t.Run("ends subscriptions when the log has it", func(t *testing.T) {
		inBubble(t, config(), func(t *testing.T, w *world) {
			id := w.user()
			a, b := w.subscribe(id, ""), w.subscribe(id, "")
			w.messages.restore("epoch--2")
			w.hint(w.messages.commit(id.UserID, "1"))
			w.wantEnd(a, errs.CursorInvalid)
			w.wantEnd(b, errs.CursorInvalid)
			w.wantNothing(w.subscribe(id, ""))
		})
	})
}

func TestChangedEpochIsFoundByComparingHeads(t *testing.T) {
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		s := w.subscribe(w.user(), "")
		w.messages.restore("epoch--2")
		w.wantEnd(s, errs.CursorInvalid)
	})
}

func TestChangedEpochIsFoundByAnotherSubscription(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		old := w.subscribe(id, "")
		w.messages.restore("epoch--2")
		s := w.subscribe(id, "")
		w.wantEnd(old, errs.CursorInvalid)
		w.hint(w.messages.commit(id.UserID, "1"))
		w.wantNext(s, 1)
	})
}

func TestChangedEpochIsFoundByReading(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		a, b := w.subscribe(id, ""), w.subscribe(id, "")
		w.messages.commit(id.UserID, "1")
		gap := w.messages.commit(id.UserID, "2")
		w.messages.restore("epoch--2")
		w.hint(gap)
		w.wantEnd(a, errs.CursorInvalid)
		w.wantEnd(b, errs.CursorInvalid)
	})
}

func TestChangedEpochThatOneReadsEndsTheOthers(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.commit(id.UserID, 100)
		replaying, live := w.subscribe(id, w.messages.cursorAt(id.UserID, 0)), w.subscribe(id, "")
		w.wantNext(replaying, span(1, firstPage)...)
		w.messages.restore("epoch--2")
		w.wantEnd(replaying, errs.CursorInvalid)
		w.wantEnd(live, errs.CursorInvalid)
	})
}

func TestReadsOfTwoEpochsAreNotShared(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		old := w.subscribe(id, "")
		w.messages.commit(id.UserID, "1")
		w.hint(w.messages.commit(id.UserID, "2"))
		var delayed atomic.Bool
		w.hub.messages = lateAnswer{w.messages, func() {
			if delayed.CompareAndSwap(false, true) {
				time.Sleep(time.Second)
			}
		}}
		var reading sync.WaitGroup
		reading.Go(func() { w.wantEnd(old, errs.CursorInvalid) })
		synctest.Wait()

		// The old subscription's read is still under way when one of the new epoch misses events at the same place.
		w.messages.restore("epoch--2")
		w.messages.truncate(id.UserID)
		s := w.subscribe(id, "")
		w.messages.commit(id.UserID, "new 1")
		w.hint(w.messages.commit(id.UserID, "new 2"))
		e, err := s.Next(t.Context())
		if err != nil || e.Message.GetBody() != "new 1" {
			t.Errorf("got %q, %v", e.Message.GetBody(), err)
		}
		w.wantNext(s, 2)
		reading.Wait()
		time.Sleep(time.Second)
	})
}

func TestSubscribeRefuses(t *testing.T) {
	tests := map[string]struct {
		cursor func(w *world, id identity.Identity) string
		breaks func(w *world, id identity.Identity)
		want   errs.Kind
	}{
		"garbage": {
			cursor: func(*world, identity.Identity) string { return "garbage" },
			want:   errs.CursorInvalid,
		},
		"another user's cursor": {
			cursor: func(w *world, _ identity.Identity) string { return w.messages.cursorAt(ids.New(), 1) },
			want:   errs.CursorInvalid,
		},
		"a cursor above the head": {
			cursor: func(w *world, id identity.Identity) string { return w.messages.cursorAt(id.UserID, 11) },
			want:   errs.CursorInvalid,
		},
		"a cursor of another epoch": {
			breaks: func(w *world, _ identity.Identity) { w.messages.restore("epoch--2") },
			want:   errs.CursorInvalid,
		},
		"a cursor older than retention": {
			breaks: func(w *world, id identity.Identity) { w.messages.setFloor(id.UserID, 9) },
			want:   errs.CursorExpired,
		},
		"a token that is not valid": {
			breaks: func(w *world, id identity.Identity) { w.messages.revoke(id) },
			want:   errs.Unauthenticated,
		},
		"no cursor and a token that is not valid": {
			cursor: func(*world, identity.Identity) string { return "" },
			breaks: func(w *world, id identity.Identity) { w.messages.revoke(id) },
			want:   errs.Unauthenticated,
		},
		"messages down": {
			breaks: func(w *world, _ identity.Identity) {
				w.messages.setBefore(func(context.Context, string) error { return errs.New(errs.Unavailable, "down") })
			},
			want: errs.Unavailable,
		},
		"an unknown failure": {
			breaks: func(w *world, _ identity.Identity) {
				w.messages.setBefore(func(context.Context, string) error { return errors.New("a bug") })
			},
			want: errs.Internal,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), func(t *testing.T, w *world) {
				id := w.user()
				w.commit(id.UserID, 10)
				cursor := w.messages.cursorAt(id.UserID, 5)
				if test.cursor != nil {
					cursor = test.cursor(w, id)
				}
				if test.breaks != nil {
					test.breaks(w, id)
				}
				_, err := w.open(t.Context(), id, cursor)
				if e, ok := errs.As(err); !ok || e.Kind != test.want {
					t.Errorf("Subscribe: %v, want an error of the kind %v", err, test.want)
				}
				if n := len(w.hub.allFeeds()); n != 0 {
					t.Errorf("%d feeds are left", n)
				}
			})
		})
	}
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := w.open(ctx, w.user(), "")
		if e, ok := errs.As(err); !ok || e.Kind != errs.Unavailable {
			t.Errorf("Subscribe: %v, want Unavailable", err)
		}
	})
}

func TestRedisDownDelaysASubscriptionByTheWaitOnly(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		start := time.Now()
		w.subscribe(id, "")
		if took := time.Since(start); took != w.hub.cfg.ConfirmWait {
			t.Errorf("the first subscription took %v", took)
		}
		start = time.Now()
		w.subscribe(id, "")
		if took := time.Since(start); took != 0 {
			t.Errorf("the second took %v", took)
		}
	})
}

func TestNextGoesOnAfterItsContextEnded(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.commit(id.UserID, 100)
		s := w.subscribe(id, w.messages.cursorAt(id.UserID, 0))
		w.wantNext(s, span(1, 64)...)
		// The read of the next page is abandoned.
		w.messages.setBefore(func(context.Context, string) error { time.Sleep(time.Second); return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next: %v", err)
		}
		w.wantNext(s, span(65, 100)...)
	})
}

func TestFailingLogIsReadAgain(t *testing.T) {
	failures := map[string]error{
		"unavailable":   errs.New(errs.Unavailable, "down"),
		"unknown":       errors.New("a bug"),
		"out of budget": errs.New(errs.RateLimited, "later"),
	}
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), func(t *testing.T, w *world) {
				id := w.user()
				s := w.subscribe(id, "")
				left := 20
				w.messages.setBefore(func(_ context.Context, method string) error {
					if left--; left > 0 {
						return failure
					}
					return nil
				})
				w.messages.commit(id.UserID, "lost")
				w.hint(w.messages.commit(id.UserID, "seen"))
				w.wantNext(s, 1, 2)
			})
		})
	}
}

func TestStalledReadIsGivenUpAndRepeated(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.messages.setBefore(func(ctx context.Context, _ string) error {
			w.messages.setBefore(nil)
			<-ctx.Done()
			return nil
		})
		w.messages.commit(id.UserID, "lost")
		w.hint(w.messages.commit(id.UserID, "seen"))
		w.wantNext(s, 1, 2)
	})
}

func TestLogThatLagsBehindItsHintsIsReadUntilItHasThem(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		// A replica of the database has not seen what the hint tells of.
		early := &eventsv1.Envelope{
			UserId: id.UserID.Bytes(), Epoch: w.messages.epoch,
			Event: &messagesv1.Event{Seq: 3, Kind: &messagesv1.Event_Message{Message: &messagesv1.Message{Body: "3"}}},
		}
		w.hint(early)
		w.wantNothing(s)
		w.commit(id.UserID, 3)
		w.wantNext(s, 1, 2, 3)
		w.hint(w.messages.commit(id.UserID, "4"))
		w.wantNext(s, 4)
	})
}

func TestLogWithAHoleIsNotDelivered(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.commit(id.UserID, 3)
		w.messages.log(id.UserID).events[1].Seq = 9
		w.hint(&eventsv1.Envelope{UserId: id.UserID.Bytes(), Epoch: w.messages.epoch, Event: &messagesv1.Event{Seq: 3}})
		w.wantNothing(s)
		w.messages.log(id.UserID).events[1].Seq = 2
		w.wantNext(s, 1, 2, 3)
	})
}

func TestExpiredTokenIsReplacedByAnotherOfTheUser(t *testing.T) {
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		user := ids.New()
		short, long := w.messages.signIn(user, time.Minute), w.messages.signIn(user, time.Hour)
		revoked := w.messages.signIn(user, 2*time.Hour)
		a, b, c := w.subscribe(short, ""), w.subscribe(long, ""), w.subscribe(revoked, "")
		w.messages.revoke(revoked)
		time.Sleep(2 * time.Minute)
		// Found by comparing heads, which needs a token, and read from the log, which needs one, too.
		w.commit(user, 1)
		w.wantNext(a, 1)
		w.wantNext(b, 1)
		w.wantNext(c, 1)
		time.Sleep(2 * time.Hour)
		for _, s := range []*reader{a, b, c} {
			w.wantEnd(s, errs.Unauthenticated)
		}
		if n := len(w.hub.allFeeds()); n != 0 {
			t.Errorf("%d feeds are left", n)
		}
	})
}

func TestSubscriptionEndsWhenItsTokenExpiresWithNothingSent(t *testing.T) {
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		s := w.subscribe(w.messages.signIn(ids.New(), time.Minute), "")
		time.Sleep(2 * time.Minute)
		w.wantEnd(s, errs.Unauthenticated)
	})
}

func TestCatchUpEndsASubscriptionWhoseTokenExpired(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.messages.signIn(ids.New(), time.Minute)
		s := w.subscribe(id, "")
		time.Sleep(2 * time.Minute)
		w.commit(id.UserID, 1)
		w.hint(w.messages.commit(id.UserID, "seen"))
		w.wantEnd(s, errs.Unauthenticated)
	})
}

func TestRetentionThatPassesASlowReaderEndsIt(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.commit(id.UserID, 1000)
		slow := w.subscribe(id, w.messages.cursorAt(id.UserID, 0))
		quick := w.subscribe(id, "")
		w.wantNext(slow, span(1, 64)...)
		w.messages.setFloor(id.UserID, 64)
		w.wantNext(slow, span(65, 70)...)
		w.messages.setFloor(id.UserID, 990)
		got := []int64{}
		for {
			e, err := slow.Next(t.Context())
			if err != nil {
				if errs.KindOf(err) != errs.CursorExpired {
					t.Errorf("Next: %v, want CursorExpired", err)
				}
				break
			}
			got = append(got, e.Seq)
		}
		if err := checkHistory(w.messages, id.UserID, 70, 70, got, false); err != nil {
			t.Error(err)
		}
		w.hint(w.messages.commit(id.UserID, "hello"))
		w.wantNext(quick, 1001)
	})
}

func TestSlowReaderFallsBackToTheLogAlone(t *testing.T) {
	cfg := config()
	cfg.QueueBytes = 10_000
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		slow, quick := w.subscribe(id, ""), w.subscribe(id, "")
		for seq := range int64(500) {
			w.hint(w.messages.commit(id.UserID, strings.Repeat("x", 100)))
			w.wantNext(quick, seq+1)
			_, queued := slow.feed.queued()
			if queued > int64(cfg.QueueBytes) {
				t.Fatalf("%d bytes are queued, more than %d", queued, cfg.QueueBytes)
			}
		}
		if n := w.messages.callsOf("ReadLog"); n != 0 {
			t.Errorf("the log was read %d times for a reader that keeps up", n)
		}
		w.wantNext(slow, span(1, 500)...)
		w.hint(w.messages.commit(id.UserID, "hello"))
		w.wantNext(slow, 501)
		w.wantNext(quick, 501)
	})
}

func TestEventLargerThanTheQueueIsDelivered(t *testing.T) {
	cfg := config()
	cfg.QueueBytes = 100
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		for range 3 {
			w.hint(w.messages.commit(id.UserID, strings.Repeat("x", 1000)))
		}
		w.wantNext(s, 1, 2, 3)
	})
}

func TestPagesOfLargeEventsAreSmall(t *testing.T) {
	cfg := config()
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		for range 300 {
			w.messages.commit(id.UserID, strings.Repeat("x", 16_000))
		}
		s := w.subscribe(id, w.messages.cursorAt(id.UserID, 0))
		w.wantNext(s, span(1, 300)...)
		w.messages.mu.Lock()
		defer w.messages.mu.Unlock()
		if most := slices.Max(w.messages.limits[1:]); int(most)*16_000 > cfg.QueueBytes {
			t.Errorf("a page of %d events was asked for", most)
		}
	})
}

func TestPageThatIsTooLargeIsReadInSmallerOnes(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.commit(id.UserID, 1000)
		s := w.subscribe(id, w.messages.cursorAt(id.UserID, 0))
		w.messages.setBefore(func(context.Context, string) error {
			w.messages.mu.Lock()
			defer w.messages.mu.Unlock()
			if w.messages.limits[len(w.messages.limits)-1] > 100 {
				return errs.New(errs.Internal, "the message is larger than gRPC allows")
			}
			return nil
		})
		w.wantNext(s, span(1, 1000)...)
	})
}

func TestReadEventsAreNotYielded(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.messages.commitRead(id.UserID)
		w.messages.commit(id.UserID, "2")
		w.messages.commitRead(id.UserID)
		s := w.subscribe(id, w.messages.cursorAt(id.UserID, 0))
		w.wantNext(s, 2)
		w.wantNothing(s)
		w.hint(w.messages.commitRead(id.UserID))
		w.hint(w.messages.commit(id.UserID, "5"))
		w.hint(w.messages.commitRead(id.UserID))
		w.wantNext(s, 5)
		w.wantNothing(s)
		if n := w.messages.callsOf("ReadLog"); n != 1 {
			t.Errorf("the log was read %d times, want once", n)
		}
	})
}

func TestCloseEndsAWaitingNextAndIsIdempotent(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s, other := w.subscribe(id, ""), w.subscribe(id, "")
		var waiting sync.WaitGroup
		waiting.Go(func() { w.wantEnd(s, errs.Unavailable) })
		synctest.Wait()
		s.Close()
		s.Close()
		waiting.Wait()
		w.hint(w.messages.commit(id.UserID, "1"))
		w.wantNext(other, 1)
		other.Close()
		if n := len(w.hub.allFeeds()); n != 0 {
			t.Errorf("%d feeds are left", n)
		}
	})
}

func TestCloseEndsANextThatWaitsForTheLog(t *testing.T) {
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.messages.setBefore(func(ctx context.Context, _ string) error { <-ctx.Done(); return nil })
		w.commit(id.UserID, 1)
		w.hint(w.messages.commit(id.UserID, "seen"))
		var waiting sync.WaitGroup
		waiting.Go(func() { w.wantEnd(s, errs.Unavailable) })
		synctest.Wait()
		start := time.Now()
		s.Close()
		waiting.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("Next returned %v after Close", took)
		}
	})
}

func TestHubsEndEndsSubscriptions(t *testing.T) {
	ends := map[string]func(h *Hub, stop func()){
		"the end of Run": func(_ *Hub, stop func()) { stop() },
		"Close":          func(h *Hub, _ func()) { h.Close(); h.Close() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), func(t *testing.T, w *world) {
				hub := New(config(), w.hub.bus.(*link).client, w.messages, w.hub.log)
				w = &world{TB: t, messages: w.messages, hub: hub}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- hub.Run(ctx) }()
				id := w.user()
				w.commit(id.UserID, 1)
				subs := make([]*reader, 3)
				for i := range subs {
					var err error
					if subs[i], err = w.open(t.Context(), id, ""); err != nil {
						t.Fatal(err)
					}
				}
				end(hub, cancel)
				if err := <-done; err != nil {
					t.Errorf("Run: %v", err)
				}
				for _, s := range subs {
					w.wantEnd(s, errs.Unavailable)
					s.Close()
				}
				if _, err := w.open(t.Context(), id, ""); errs.KindOf(err) != errs.Unavailable {
					t.Errorf("Subscribe after the end: %v, want Unavailable", err)
				}
			})
		})
	}
}

func TestHeadsAreAskedForInBatches(t *testing.T) {
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	cfg.ConfirmWait = 0
	inBubble(t, cfg, func(t *testing.T, w *world) {
		subs := make([]*reader, 2500)
		for i := range subs {
			id := w.user()
			subs[i] = w.subscribe(id, "")
			w.subscribe(id, "")
			w.commit(id.UserID, 1)
		}
		for _, s := range subs {
			w.wantNext(s, 1)
		}
		w.messages.mu.Lock()
		defer w.messages.mu.Unlock()
		slices.Sort(w.messages.batches)
		if !slices.Equal(w.messages.batches, []int{500, 1000, 1000}) {
			t.Errorf("the batches were %v", w.messages.batches)
		}
	})
}

func TestConfigIsValidated(t *testing.T) {
	valid := config()
	if err := valid.Validate(); err != nil {
		t.Errorf("the tests' own: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"no interval": func(c *Config) { c.HeadInterval = 0 },
		"no queue":    func(c *Config) { c.QueueBytes = 0 },
		"no page":     func(c *Config) { c.ReplayPage = 0 },
		"large page":  func(c *Config) { c.ReplayPage = 501 },
		"wait":        func(c *Config) { c.ConfirmWait = -1 },
	} {
		cfg := config()
		change(&cfg)
		if cfg.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
