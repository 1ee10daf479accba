package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/ids"
)

func TestResumeAfterMissing2500MessagesIn40ConversationsYieldsAllInOrderOnceThenLive(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	const conversations, missed = 40, 2500
	ann := account(t, stack, "Ann")
	peers := make([]*client.Client, conversations)
	for i := range peers {
		peers[i] = account(t, stack, "Peer")
	}
	// One message is seen live; its cursor is the last that the client keeps.
	before := subscribe(t, ann, cursor(t, ann))
	send(t, peers[0], ann, "seen live")
	last := before.count(t, 1)[0].Cursor
	before.cut()

	sent := make([]client.Message, missed)
	parallel(16, func(worker int) {
		for i := worker; i < missed; i += 16 {
			peer := peers[i%conversations]
			m, err := at(stack, peer)[i%len(stack.Graphs)].Send(t.Context(), client.Draft{
				RecipientID: ann.User.ID, Body: fmt.Sprint("missed ", i), ClientID: ids.New().String(),
			})
			if err != nil {
				t.Errorf("message %d: %v", i, err)
				return
			}
			sent[i] = m
		}
	})
	if t.Failed() {
		return
	}

	resumed := subscribe(t, ann.At(stack.Endpoints()[1]), last)
	resumed.count(t, missed)
	live := []client.Message{send(t, peers[3], ann, "live 1"), send(t, ann, peers[4], "live 2")}
	events := resumed.until(t, live[1])
	if len(events) != missed+len(live) {
		t.Fatalf("the subscription yields %d events, want %d", len(events), missed+len(live))
	}
	wantConsecutive(t, "ann", events)
	wantOnceInOrder(t, "ann, once live,", events[missed:], live)
	want, got := map[string]bool{}, map[string]bool{}
	for i := range missed {
		want[sent[i].ID], got[events[i].Message.ID] = true, true
	}
	if len(got) != missed || len(want) != missed {
		t.Fatalf("the subscription yields %d different messages of %d", len(got), len(want))
	}
	for id := range want {
		if !got[id] {
			t.Fatalf("the subscription lacks message %s", id)
		}
	}
	// Whoever resumes within the replay meets the rest of it.
	middle := subscribe(t, ann, events[1000].Cursor)
	wantOnceInOrder(t, "ann, from within,", middle.until(t, live[1]), messagesOf(events[1001:]))
}

func messagesOf(events []client.Event) []client.Message {
	messages := make([]client.Message, len(events))
	for i, e := range events {
		messages[i] = e.Message
	}
	return messages
}

func TestWithoutACursorASubscriptionIsLiveFromNow(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	old := send(t, bob, ann, "before")
	s := subscribe(t, ann, "") // The variable is an explicit null.
	// Nothing tells when a subscription without a cursor begins, so bob talks until he is heard.
	var sent []client.Message
	stop := time.Now().Add(patience)
	for n := 0; ; n++ {
		sent = append(sent, send(t, bob, ann, fmt.Sprint("now ", n)))
		s.mu.Lock()
		heard := len(s.events) > 0
		s.mu.Unlock()
		if heard || time.Now().After(stop) {
			break
		}
	}
	events := s.until(t, sent[len(sent)-1])
	first := slices.IndexFunc(sent, func(m client.Message) bool { return m.ID == events[0].Message.ID })
	if first < 0 {
		t.Fatalf("the first event is message %d; the last before the subscription was %d", events[0].Message.Seq, old.Seq)
	}
	wantOnceInOrder(t, "ann", events, sent[first:])
}

func TestACursorThatCannotBeUsedIsAClearErrorOfTheRightCode(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Graphs: 2}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	empty := cursor(t, ann)
	for i := range 3 {
		send(t, bob, ann, fmt.Sprint("message ", i))
	}
	good := cursor(t, ann)

	refused := func(name, after, code string) {
		t.Helper()
		for _, c := range at(stack, ann) {
			// A process that has just been started may not be reachable yet, which is no answer.
			err := follow(t, c, after).failure(t)
			if client.Code(err) != code {
				t.Errorf("%s: the subscription fails with %v, want %s", name, err, code)
			}
		}
	}
	refused("another user's", cursor(t, bob), "CURSOR_INVALID")
	refused("garbage", "garbage", "CURSOR_INVALID")
	refused("garbage that is base64", strings.Repeat("QUJD", 12), "CURSOR_INVALID")
	refused("a cut one", good[:len(good)-1], "CURSOR_INVALID")
	refused("a prolonged one", good+"A", "CURSOR_INVALID")
	refused("a very long one", strings.Repeat("A", 5000), "CURSOR_INVALID")
	for i := 0; i < len(good); i += 7 {
		refused(fmt.Sprint("one changed in place ", i), good[:i]+other(good[i])+good[i+1:], "CURSOR_INVALID")
	}
	// The empty text would mean "from now on" to a careless reader. It cannot go through client.Subscribe.
	if text := answer(t, ann, `subscription { newMessage(after: "") { cursor } }`, nil); !strings.Contains(text, "errors") {
		t.Errorf("the empty cursor is answered with %s", text)
	}

	// Above the head: the log as it is after a restore from a backup that forgot to renew the epoch.
	db, err := stack.OpenDB("messages")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{
		"DELETE e FROM events e JOIN user_logs l ON l.user_id = e.user_id WHERE e.seq = 3 AND l.head = 3",
		"UPDATE user_logs SET head = 2 WHERE head = 3",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	refused("above the head", good, "CURSOR_INVALID")
	subscribe(t, ann, empty).count(t, 2)

	// Another epoch: the log as it is after a restore by the book.
	current := cursor(t, ann)
	if err := stack.Messages[0].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := stack.Programs().Run(t.Context(), stack.Env(), "messages", "epoch", "renew"); err != nil {
		t.Fatal(err)
	}
	if err := stack.Messages[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused("of another epoch", current, "CURSOR_INVALID")
	renewed := follow(t, ann, cursor(t, ann))
	wantNext := send(t, bob, ann, "in the new epoch")
	wantOnceInOrder(t, "ann", renewed.until(t, wantNext), []client.Message{wantNext})
}

// other returns a letter of the cursor's alphabet that is not the given one.
func other(letter byte) string {
	if letter == 'A' {
		return "B"
	}
	return "A"
}

func TestASubscriptionThatIsOpenEndsWhenTheEpochChanges(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{}))
	ann := account(t, stack, "Ann")
	s := subscribe(t, ann, cursor(t, ann))
	if err := stack.Programs().Run(t.Context(), stack.Env(), "messages", "epoch", "renew"); err != nil {
		t.Fatal(err)
	}
	if err := s.failure(t); client.Code(err) != "CURSOR_INVALID" {
		t.Errorf("the subscription ends with %v, want CURSOR_INVALID", err)
	}
}

func TestACursorOlderThanRetentionIsCursorExpired(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{
		Env: []string{"MESSAGES_LOG_RETENTION=2s", "MESSAGES_LOG_RETENTION_EVERY=100ms"},
	}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	old := cursor(t, ann)
	for i := range 5 {
		send(t, bob, ann, fmt.Sprint("soon forgotten ", i))
	}
	newest := cursor(t, ann)
	db, err := stack.OpenDB("messages")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	eventually(t, "retention deletes the events", func(ctx context.Context) (bool, error) {
		var left int
		err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM events").Scan(&left)
		return left == 0, err
	})
	if err := subscribe(t, ann, old).failure(t); client.Code(err) != "CURSOR_EXPIRED" {
		t.Errorf("the subscription fails with %v, want CURSOR_EXPIRED", err)
	}
	// The head itself misses nothing, and the messages are still there.
	s := subscribe(t, ann, newest)
	next := send(t, bob, ann, "later")
	wantOnceInOrder(t, "ann", s.until(t, next), []client.Message{next})
	if got := history(t, ann, next.ConversationID); len(got) != 6 {
		t.Errorf("the history has %d messages, want 6", len(got))
	}
}

// eventually asks again and again until the answer is yes.
func eventually(t *testing.T, what string, ask func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, err := ask(ctx)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if yes {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, patience)
		case <-tick.C:
		}
	}
}

func TestBetweenACursorReadBeforeAListAndItsSubscriptionNothingFallsHoweverSendsRace(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann := account(t, stack, "Ann")
	peers := make([]*client.Client, 4)
	for i := range peers {
		peers[i] = account(t, stack, "Peer")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var talking sync.WaitGroup
	for i, peer := range peers {
		talking.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				from, to := peer, ann
				if n%5 == 4 {
					from, to = ann, peer
				}
				// The context's end leaves the outcome of the last one open, which is as good as any other race.
				_, _ = at(stack, from)[n%len(stack.Graphs)].Send(ctx, client.Draft{
					RecipientID: to.User.ID, Body: fmt.Sprintf("%d of peer %d", n, i), ClientID: ids.New().String(),
				})
			}
		})
	}
	type attempt struct {
		listed map[string]int // The newest number that the lists had, by conversation.
		stream *stream
	}
	var attempts []attempt
	for round := range 25 {
		c := at(stack, ann)[round%len(stack.Graphs)]
		after := cursor(t, c)
		conversations, err := c.AllConversations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a := attempt{listed: map[string]int{}}
		for _, conversation := range conversations {
			page, err := c.History(t.Context(), conversation.ID, client.Range{Last: 5})
			if err != nil {
				t.Fatal(err)
			}
			a.listed[conversation.ID] = page.Messages[len(page.Messages)-1].Seq
		}
		a.stream = subscribe(t, at(stack, ann)[(round+1)%len(stack.Graphs)], after)
		attempts = append(attempts, a)
	}
	stop()
	talking.Wait()
	last := make(map[string]client.Message)
	for _, peer := range peers {
		m := send(t, peer, ann, "the last of all")
		last[m.ConversationID] = m
	}
	for round, a := range attempts {
		for id, m := range last {
			var numbers []int
			for _, e := range a.stream.until(t, m) {
				if e.Message.ConversationID == id {
					numbers = append(numbers, e.Message.Seq)
				}
			}
			if numbers[0] > a.listed[id]+1 {
				t.Errorf("round %d: the list ends with message %d and the subscription begins with %d", round, a.listed[id], numbers[0])
			}
			for i, number := range numbers {
				if number != numbers[0]+i {
					t.Errorf("round %d: the subscription has message %d after %d", round, number, numbers[i-1])
				}
			}
			if numbers[len(numbers)-1] != m.Seq {
				t.Errorf("round %d: the subscription ends with message %d, not %d", round, numbers[len(numbers)-1], m.Seq)
			}
		}
	}
}
