package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
)

func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }

// open returns a store on a fresh schema.
func open(t *testing.T) *Store {
	t.Helper()
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	cfg := mysql.Config{DSN: mysql.DSN(mysqltest.DSN(t)), MultiStatements: true}
	database, err := mysql.Open(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { database.Close() })
	migrator, err := mysql.NewMigrator(database, Migrations)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return New(database)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// say is a message from one user to another.
func say(from, to ids.ID, body string) NewMessage {
	return NewMessage{Users: Pair(from, to), SenderID: from, ClientID: ids.New(), Body: body, Now: now()}
}

// send stores a message in the conversation of its users, whether it exists or not, as the service does.
func send(ctx context.Context, s *Store, m NewMessage) (Sent, error) {
	id, err := s.ConversationByUsers(ctx, m.Users)
	if err != nil && !errors.Is(err, ErrNoConversation) {
		return Sent{}, err
	}
	m.ConversationID = id
	return s.Send(ctx, m)
}

func mustSend(t *testing.T, s *Store, m NewMessage) Sent {
	t.Helper()
	sent, err := send(t.Context(), s, m)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// log reads a user's whole log in small pages.
func log(t *testing.T, s *Store, user ids.ID) []Event {
	t.Helper()
	var all []Event
	for {
		page, err := s.Events(t.Context(), user, int64(len(all)), 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}

func TestMessageIsStoredWithAnEventForEachParticipant(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	first := mustSend(t, s, say(a, b, "héllo 👩‍👩‍👧 שלום 你好"))
	second := mustSend(t, s, say(b, a, "two"))

	if first.Message.Seq != 1 || second.Message.Seq != 2 {
		t.Errorf("seqs are %d and %d", first.Message.Seq, second.Message.Seq)
	}
	for _, user := range []ids.ID{a, b} {
		events := log(t, s, user)
		if len(events) != 2 {
			t.Fatalf("%d events for %v, want 2", len(events), user)
		}
		for i, sent := range []Sent{first, second} {
			want := Event{
				UserID: user, Seq: int64(i + 1), Kind: KindMessage, ConversationID: sent.Message.ConversationID,
				CreatedAt: sent.Message.SentAt, Message: &sent.Message,
			}
			if diff := gocmp.Diff(want, events[i]); diff != "" {
				t.Errorf("event %d (-want +got):\n%s", i+1, diff)
			}
		}
		state, err := s.LogState(t.Context(), user)
		if err != nil || state.Head != 2 || state.Floor != 0 || state.Epoch == (Epoch{}) {
			t.Errorf("log state is %+v, %v", state, err)
		}
	}
	if len(first.Events) != 2 || first.Events[0].UserID != Pair(a, b).Lo || first.Events[1].UserID != Pair(a, b).Hi {
		t.Errorf("events returned are %+v", first.Events)
	}
}

func TestNoteToSelfIsOneEvent(t *testing.T) {
	s := open(t)
	me := ids.New()
	sent := mustSend(t, s, say(me, me, "milk"))
	mustSend(t, s, say(me, me, "eggs"))
	if len(sent.Events) != 1 || len(log(t, s, me)) != 2 {
		t.Errorf("%d events returned, %d in the log", len(sent.Events), len(log(t, s, me)))
	}
	list, err := s.ListConversations(t.Context(), me, nil, 10)
	if err != nil || len(list) != 1 || list[0].LastSeq != 2 || list[0].ReadSeq(me) != 2 {
		t.Errorf("list is %+v, %v", list, err)
	}
}

func TestSameClientIDReturnsTheFirstMessage(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	m := say(a, b, "once")
	first := mustSend(t, s, m)
	again := mustSend(t, s, m)
	if diff := gocmp.Diff(first.Message, again.Message); diff != "" || len(again.Events) != 0 {
		t.Errorf("again (-first +again):\n%s and %d events", diff, len(again.Events))
	}
	// Texts that a collation calls equal are different texts.
	for name, other := range map[string]NewMessage{
		"another body":         {Users: m.Users, SenderID: a, ClientID: m.ClientID, Body: "ONCE", Now: now()},
		"trailing space":       {Users: m.Users, SenderID: a, ClientID: m.ClientID, Body: "once ", Now: now()},
		"another conversation": {Users: Pair(a, a), SenderID: a, ClientID: m.ClientID, Body: "once", Now: now()},
	} {
		if _, err := send(t.Context(), s, other); !errors.Is(err, ErrClientIDReused) {
			t.Errorf("%s: %v, want a conflict", name, err)
		}
	}
	// The other side may use the same id.
	theirs := NewMessage{Users: m.Users, SenderID: b, ClientID: m.ClientID, Body: "mine", Now: now()}
	if sent := mustSend(t, s, theirs); sent.Message.Seq != 2 {
		t.Errorf("the other side's message has seq %d", sent.Message.Seq)
	}
	if n := len(log(t, s, a)); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

func TestSameClientIDConcurrentlyIsOneMessage(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	// The first round races to make the conversation as well.
	for round := range 3 {
		m := say(a, b, fmt.Sprintf("round %d", round))
		results := make([]Sent, 50)
		errs := make([]error, 50)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i], errs[i] = send(t.Context(), s, m) })
		}
		wg.Wait()
		for i := range results {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			if diff := gocmp.Diff(results[0].Message, results[i].Message); diff != "" {
				t.Errorf("answers differ: %s", diff)
			}
		}
	}
	if n := len(log(t, s, a)); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
}

func TestConcurrentSendersLeaveNoGapAndNoRepeat(t *testing.T) {
	s := open(t)
	const senders, each = 16, 12
	people := []ids.ID{ids.New(), ids.New(), ids.New()}
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for n := range each {
				// Three conversations whose participants' logs cross, in every direction.
				from, to := people[(i+n)%3], people[(i+n+1)%3]
				if (i+n)%2 == 0 {
					from, to = to, from
				}
				if _, err := send(t.Context(), s, say(from, to, fmt.Sprint(i, n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, user := range people {
		state, err := s.LogState(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		events := log(t, s, user) // Fails on a gap.
		if int64(len(events)) != state.Head {
			t.Errorf("%d events up to head %d", len(events), state.Head)
		}
		total += len(events)
		// Within a conversation, the log has messages in the order of their seqs.
		last := map[ids.ID]int64{}
		for _, e := range events {
			if e.Message.Seq != last[e.ConversationID]+1 {
				t.Errorf("seq %d follows %d", e.Message.Seq, last[e.ConversationID])
			}
			last[e.ConversationID] = e.Message.Seq
		}
	}
	if total != 2*senders*each {
		t.Errorf("%d events, want %d", total, 2*senders*each)
	}
}

func TestSendToAConversationThatIsGoneChangesNothing(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	mustSend(t, s, say(a, b, "hello"))
	m := say(a, b, "lost")
	m.ConversationID = ids.New()
	if _, err := s.Send(t.Context(), m); !errors.Is(err, ErrNoConversation) {
		t.Errorf("error is %v", err)
	}
	if n := len(log(t, s, a)); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	mustSend(t, s, say(b, a, "still whole"))
	if n := len(log(t, s, a)); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
}

func TestTimesNeverGoBackInAConversation(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	early := say(a, b, "from a clock behind")
	mustSend(t, s, say(a, b, "first"))
	early.Now = early.Now.Add(-time.Hour)
	late := mustSend(t, s, early)
	history := history(t, s, late.Message.ConversationID)
	if history[1].SentAt.Before(history[0].SentAt) {
		t.Errorf("%v before %v", history[1].SentAt, history[0].SentAt)
	}
	// The sweeper goes by each sender's own clock, so that a fast one holds back nobody else's events.
	old, err := s.UnrelayedEvents(t.Context(), now().Add(-time.Minute), 10)
	if err != nil || len(old) != 2 {
		t.Errorf("%d events count as old, %v; want the 2 of the late message", len(old), err)
	}
}

func history(t *testing.T, s *Store, conversation ids.ID) []Message {
	t.Helper()
	pages, err := s.History(t.Context(), []Range{{ConversationID: conversation, Limit: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	return pages[0]
}

func TestHistoryPagesBothWays(t *testing.T) {
	s := open(t)
	a, b, c := ids.New(), ids.New(), ids.New()
	var ab, ac ids.ID
	for i := range 20 {
		ab = mustSend(t, s, say(a, b, fmt.Sprint(i))).Message.ConversationID
		ac = mustSend(t, s, say(c, a, fmt.Sprint(i))).Message.ConversationID
	}
	pages, err := s.History(t.Context(), []Range{
		{ConversationID: ab, Limit: 3, FromEnd: true},
		{ConversationID: ab, Limit: 3},
		{ConversationID: ab, AfterSeq: 5, Limit: 3},
		{ConversationID: ab, BeforeSeq: 5, Limit: 3, FromEnd: true},
		{ConversationID: ac, AfterSeq: 2, BeforeSeq: 5, Limit: 10},
		{ConversationID: ids.New(), Limit: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]int64{{18, 19, 20}, {1, 2, 3}, {6, 7, 8}, {2, 3, 4}, {3, 4}, nil}
	for i, page := range pages {
		var seqs []int64
		for _, m := range page {
			seqs = append(seqs, m.Seq)
		}
		if !slices.Equal(seqs, want[i]) {
			t.Errorf("page %d has %v, want %v", i, seqs, want[i])
		}
	}
}

func TestNobodyReadsWhatIsNotTheirs(t *testing.T) {
	s := open(t)
	a, b, stranger := ids.New(), ids.New(), ids.New()
	m := mustSend(t, s, say(a, b, "secret")).Message
	mustSend(t, s, say(stranger, stranger, "own"))

	conversations, err := s.Conversations(t.Context(), stranger, []ids.ID{m.ConversationID})
	if err != nil || len(conversations) != 0 {
		t.Errorf("a stranger reads %v, %v", conversations, err)
	}
	messages, err := s.Messages(t.Context(), stranger, []MessageRef{{m.ConversationID, 1}})
	if err != nil || len(messages) != 0 {
		t.Errorf("a stranger reads %v, %v", messages, err)
	}
	if _, err := s.MarkRead(t.Context(), stranger, m.ConversationID, 1, now()); !errors.Is(err, ErrNoConversation) {
		t.Errorf("a stranger marks read: %v", err)
	}
	list, err := s.ListConversations(t.Context(), stranger, nil, 10)
	if err != nil || len(list) != 1 || list[0].LastMessage.Body != "own" {
		t.Errorf("a stranger lists %v, %v", list, err)
	}
	messages, err = s.Messages(t.Context(), b, []MessageRef{{m.ConversationID, 1}, {m.ConversationID, 2}})
	if err != nil || len(messages) != 1 || messages[0].Body != "secret" {
		t.Errorf("a participant reads %v, %v", messages, err)
	}
}

func TestConversationsAreListedByTheirNewestMessage(t *testing.T) {
	s := open(t)
	me := ids.New()
	want := make([]ids.ID, 0, 25)
	for i := range 25 {
		var other ids.ID // Ids below and above the caller's own, so that both indexes serve.
		if other = ids.New(); i%2 == 0 {
			other[0] = 0
		}
		if i == 12 {
			other = me
		}
		m := say(me, other, "hello")
		m.Now = m.Now.Add(time.Duration(i/2) * time.Second) // Pairs share their time: the id decides.
		want = append(want, mustSend(t, s, m).Message.ConversationID)
	}
	all, err := s.ListConversations(t.Context(), me, nil, 100)
	if err != nil || len(all) != len(want) {
		t.Fatalf("%d conversations, %v", len(all), err)
	}
	if !slices.IsSortedFunc(all, func(x, y Conversation) int {
		return cmp.Or(y.LastMessageAt.Compare(x.LastMessageAt), y.ID.Compare(x.ID))
	}) {
		t.Error("not sorted by time and id, newest first")
	}
	var paged []Conversation
	var after *Position
	for {
		page, err := s.ListConversations(t.Context(), me, after, 4)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
		last := page[len(page)-1]
		after = &Position{LastMessageAt: last.LastMessageAt, ID: last.ID}
	}
	if diff := gocmp.Diff(all, paged); diff != "" {
		t.Errorf("pages differ from the whole:\n%s", diff)
	}
}

func TestReadPointersMoveOnlyForward(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	var conversation ids.ID
	for range 5 {
		conversation = mustSend(t, s, say(a, b, "x")).Message.ConversationID
	}
	for _, step := range []struct{ seq, want int64 }{{0, 0}, {3, 3}, {2, 3}, {3, 3}, {99, 5}, {1, 5}} {
		before := len(log(t, s, b))
		read, err := s.MarkRead(t.Context(), b, conversation, step.seq, now())
		if err != nil || read.Conversation.ReadSeq(b) != step.want {
			t.Errorf("after reading %d the pointer is %d, %v; want %d", step.seq, read.Conversation.ReadSeq(b), err, step.want)
		}
		events := log(t, s, b)
		if moved := read.Event != nil; moved != (len(events) == before+1) {
			t.Errorf("reading %d: an event is %t, the log grew from %d to %d", step.seq, moved, before, len(events))
		}
		if read.Event != nil && events[len(events)-1].ReadSeq != step.want {
			t.Errorf("the event tells of %d, want %d", events[len(events)-1].ReadSeq, step.want)
		}
	}
	// Sending reads what came before.
	mustSend(t, s, say(a, b, "x"))
	mustSend(t, s, say(b, a, "y"))
	c, err := s.ConversationWith(t.Context(), Pair(a, b))
	if err != nil || c.ReadSeq(b) != 7 || c.ReadSeq(a) != 6 {
		t.Errorf("pointers are %d and %d, %v", c.ReadSeq(a), c.ReadSeq(b), err)
	}
	if n := len(log(t, s, a)); n != 7 {
		t.Errorf("the other side's log has %d events, want only the 7 messages", n)
	}
}

func TestUnreadCountsEqualAModelUnderAnyInterleaving(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	conversation := mustSend(t, s, say(a, b, "first")).Message.ConversationID
	last, readA, readB := int64(1), int64(1), int64(0)
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		switch random.IntN(4) {
		case 0:
			mustSend(t, s, say(a, b, "x"))
			last++
			readA = last
		case 1:
			mustSend(t, s, say(b, a, "x"))
			last++
			readB = last
		default:
			seq := random.Int64N(last + 3)
			read, err := s.MarkRead(t.Context(), b, conversation, seq, now())
			if err != nil {
				t.Fatal(err)
			}
			readB = max(readB, min(seq, last))
			if got := read.Conversation.LastSeq - read.Conversation.ReadSeq(b); got != last-readB {
				t.Fatalf("unread is %d, want %d", got, last-readB)
			}
		}
	}
	c, err := s.ConversationWith(t.Context(), Pair(a, b))
	if err != nil || c.ReadSeq(a) != readA || c.ReadSeq(b) != readB || c.LastSeq != last {
		t.Errorf("%+v, %v; want last %d, read %d and %d", c, err, last, readA, readB)
	}
}

func TestUnrelayedEventsAreFoundUntilMarked(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	sent := mustSend(t, s, say(a, b, "one"))
	if _, err := s.MarkRead(t.Context(), b, sent.Message.ConversationID, 1, now()); err != nil {
		t.Fatal(err)
	}
	found := func() []Event {
		t.Helper()
		events, err := s.UnrelayedEvents(t.Context(), now().Add(time.Minute), 100)
		if err != nil {
			t.Fatal(err)
		}
		return events
	}
	if events := found(); len(events) != 3 {
		t.Fatalf("%d unrelayed events, want 3", len(events))
	}
	if young, err := s.UnrelayedEvents(t.Context(), now().Add(-time.Minute), 100); err != nil || len(young) != 0 {
		t.Errorf("%d events are old, %v; want none", len(young), err)
	}
	if err := s.MarkRelayed(t.Context(), []EventRef{{a, 1}, {b, 1}}); err != nil {
		t.Fatal(err)
	}
	events := found()
	if len(events) != 1 || events[0].UserID != b || events[0].Seq != 2 || events[0].ReadSeq != 1 {
		t.Errorf("left are %+v", events)
	}
}

func TestRetentionRaisesTheFloorWithWhatItDeletes(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	var sent []Sent
	for range 6 {
		sent = append(sent, mustSend(t, s, say(a, b, "x")))
	}
	middle := sent[3].Message.SentAt
	// Nothing that was not published goes.
	if n, err := s.DeleteEventsBefore(t.Context(), a, middle, 100); err != nil || n != 0 {
		t.Errorf("deleted %d unpublished events, %v", n, err)
	}
	for seq := range int64(6) {
		if err := s.MarkRelayed(t.Context(), []EventRef{{a, seq + 1}}); err != nil {
			t.Fatal(err)
		}
	}
	users, err := s.LogsWithEventsBefore(t.Context(), middle, ids.ID{}, 10)
	if err != nil || len(users) != 2 {
		t.Errorf("%d logs with old events, %v", len(users), err)
	}
	if n, err := s.DeleteEventsBefore(t.Context(), a, middle, 2); err != nil || n != 2 {
		t.Errorf("deleted %d, %v; want 2", n, err)
	}
	if n, err := s.DeleteEventsBefore(t.Context(), a, middle, 100); err != nil || n != 1 {
		t.Errorf("deleted %d, %v; want 1", n, err)
	}
	state, err := s.LogState(t.Context(), a)
	if err != nil || state.Floor != 3 || state.Head != 6 {
		t.Errorf("log state is %+v, %v", state, err)
	}
	if _, err := s.Events(t.Context(), a, 2, 10); !errors.Is(err, ErrLogExpired) {
		t.Errorf("reading below the floor: %v", err)
	}
	if events, err := s.Events(t.Context(), a, 3, 10); err != nil || len(events) != 3 {
		t.Errorf("reading from the floor: %d events, %v", len(events), err)
	}
	if n := len(log(t, s, b)); n != 6 {
		t.Errorf("the other log has %d events, want 6", n)
	}
}

func TestImportHasTheEffectOfSending(t *testing.T) {
	s := open(t)
	a, b := ids.New(), ids.New()
	var messages []ImportedMessage
	for i := range 1203 {
		sender := a
		if i%3 == 0 {
			sender = b
		}
		messages = append(messages, ImportedMessage{SenderID: sender, Body: strings.Repeat("x", i%50+1)})
	}
	for range 2 {
		if _, err := s.Import(t.Context(), Pair(a, b), messages, now()); err != nil {
			t.Fatal(err)
		}
	}
	sent := mustSend(t, s, say(a, b, "after"))
	if sent.Message.Seq != 2407 {
		t.Errorf("the next seq is %d", sent.Message.Seq)
	}
	for _, user := range []ids.ID{a, b} {
		if n := len(log(t, s, user)); n != 2407 {
			t.Errorf("%d events, want 2407", n)
		}
	}
	if events, err := s.UnrelayedEvents(t.Context(), now().Add(time.Minute), 100); err != nil || len(events) != 2 {
		t.Errorf("%d unrelayed events, %v; want those of the message sent", len(events), err)
	}
}

func TestEpochIsRenewed(t *testing.T) {
	s := open(t)
	before, err := s.CurrentEpoch(t.Context())
	if err != nil || before == (Epoch{}) {
		t.Fatalf("epoch is %v, %v", before, err)
	}
	renewed := Epoch{ID: [8]byte{1}, Key: [32]byte{2}}
	if err := s.SetEpoch(t.Context(), renewed); err != nil {
		t.Fatal(err)
	}
	if after, err := s.CurrentEpoch(t.Context()); err != nil || after != renewed {
		t.Errorf("epoch is %v, %v", after, err)
	}
}
