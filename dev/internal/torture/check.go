package torture

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// History is all that the clients of a run saw. Every conversation in it began in the run.
type History struct {
	// Sends are the messages that clients tried to send.
	Sends []Send
	// Marks are the moves of read pointers that were acknowledged.
	Marks []Mark
	// Streams are the subscriptions, each over all of its connections.
	Streams []Stream
	// Views are what each user saw when everything had come to rest.
	Views []View
	// Unrelayed is how many events were still waiting to be published to Redis then.
	Unrelayed int
	// Mishaps are answers that no fault excuses, noted as they came.
	Mishaps []Violation
}

// Send is a message that a client tried to send, as often as it took, under one client id.
type Send struct {
	ClientID, Sender, Recipient, Body string
	// Begun is before the first attempt, Ended after the first acknowledgement.
	Begun, Ended time.Time
	// Acks are all answers with a message; none if the client gave up, which leaves the outcome unknown.
	Acks []Message
}

// Mark is an acknowledged call of markRead.
type Mark struct {
	User, Conversation string
	// Seq is what was asked for, ReadSeq what was answered.
	Seq, ReadSeq int
}

// Message is a message as somebody saw it.
type Message struct {
	ID, Conversation string
	Seq              int
	Sender, Body     string
}

func (m Message) String() string {
	return fmt.Sprintf("message %d of conversation %s", m.Seq, m.Conversation)
}

// Stream is a subscription of a user, over all of its connections.
type Stream struct {
	User, Name string
	// Late says that it began within the run, after a cursor that was read before the lists. Known then has what the lists
	// held. All others began before the first message.
	Late  bool
	Known []Message
	// Messages are those that it yielded, in that order.
	Messages []Message
}

// View is what a user saw when everything had come to rest.
type View struct {
	User string
	// Log has the messages that a subscription from the cursor before the first message yields.
	Log []Message
	// Conversations are those of the list, with their whole histories.
	Conversations []Conversation
}

// Conversation is a conversation as one of its users saw it.
type Conversation struct {
	ID, With        string
	Unread, ReadSeq int
	Messages        []Message
}

// Kind says what guarantee was broken.
type Kind string

// The kinds of violations.
const (
	Lost       Kind = "lost"       // Something acknowledged or logged did not reach somebody who was to get it.
	Repeated   Kind = "repeated"   // Something came twice.
	Disordered Kind = "disordered" // Something came in another order than the log's or the conversation's.
	Gap        Kind = "gap"        // A conversation's numbers are not 1 to n.
	Altered    Kind = "altered"    // Something is not what was sent.
	Phantom    Kind = "phantom"    // Something came that nobody sent, or that was for somebody else.
	Overtaken  Kind = "overtaken"  // A message has a number before one that was acknowledged before it was sent.
	Unread     Kind = "unread"     // A read pointer or a count is not what the model says.
	Unrelayed  Kind = "unrelayed"  // A committed event was never published.
	Mishap     Kind = "mishap"     // An answer that no fault excuses.
)

// Violation is one breach of a guarantee.
type Violation struct {
	Kind Kind
	What string
}

func (v Violation) String() string { return string(v.Kind) + ": " + v.What }

// Check returns what in a history breaks a guarantee, or nothing.
func Check(h History) []Violation {
	c := &checker{
		history: h,
		sends:   make(map[string]*Send, len(h.Sends)),
		views:   make(map[string]*View, len(h.Views)),
		stored:  map[string][]Message{},
	}
	for i := range h.Sends {
		c.sends[h.Sends[i].Body] = &h.Sends[i]
	}
	for i := range h.Views {
		c.views[h.Views[i].User] = &h.Views[i]
	}
	c.violations = slices.Clone(h.Mishaps)
	c.checkHistories()
	c.checkSends()
	c.checkTimes()
	c.checkLogs()
	for _, s := range h.Streams {
		c.checkStream(s)
	}
	c.checkPointers()
	if h.Unrelayed > 0 {
		c.report(Unrelayed, "%d events are still waiting to be published", h.Unrelayed)
	}
	return c.violations
}

// checker collects the violations of one history.
type checker struct {
	history History
	// sends has the sends by body: every body is unique, and unlike the client id everybody sees it.
	sends map[string]*Send
	views map[string]*View
	// stored has the messages of each conversation, as the first of its users saw them.
	stored     map[string][]Message
	violations []Violation
}

func (c *checker) report(kind Kind, format string, args ...any) {
	c.violations = append(c.violations, Violation{Kind: kind, What: fmt.Sprintf(format, args...)})
}

// checkHistories checks that a conversation's numbers are 1 to n, that both users see the same messages, and that each of
// them was sent, once, in this conversation.
func (c *checker) checkHistories() {
	firstUser := map[string]string{}
	bodies := map[string]Message{}
	for _, view := range c.history.Views {
		for _, conversation := range view.Conversations {
			for i, m := range conversation.Messages {
				if m.Seq != i+1 {
					c.report(Gap, "the history that %s sees of conversation %s has number %d in place %d",
						view.User, conversation.ID, m.Seq, i+1)
					break
				}
			}
			if other, seen := firstUser[conversation.ID]; seen {
				if !slices.Equal(c.stored[conversation.ID], conversation.Messages) {
					c.report(Altered, "%s and %s see different histories of conversation %s: %d and %d messages",
						other, view.User, conversation.ID, len(c.stored[conversation.ID]), len(conversation.Messages))
				}
				continue
			}
			firstUser[conversation.ID] = view.User
			c.stored[conversation.ID] = conversation.Messages
			for _, m := range conversation.Messages {
				if first, repeated := bodies[m.Body]; repeated {
					c.report(Repeated, "%v and %v are one send, from %s", first, m, m.Sender)
				}
				bodies[m.Body] = m
				c.checkOrigin(m, view.User, conversation.With)
			}
		}
	}
}

// checkOrigin checks that a message is what its sender sent to the other of two users.
func (c *checker) checkOrigin(m Message, user, with string) {
	send := c.sends[m.Body]
	switch {
	case send == nil:
		c.report(Phantom, "nobody sent %v, or not with the body %.100q", m, m.Body)
	case send.Sender != m.Sender:
		c.report(Altered, "%v was sent by %s and shown as from %s", m, send.Sender, m.Sender)
	case !samePair(send.Sender, send.Recipient, user, with):
		c.report(Phantom, "%v was sent by %s to %s and stands between %s and %s", m, send.Sender, send.Recipient, user, with)
	}
}

func samePair(a, b, x, y string) bool { return a == x && b == y || a == y && b == x }

// checkSends checks that what was acknowledged is stored as it was acknowledged, whoever acknowledged it.
func (c *checker) checkSends() {
	for _, send := range c.history.Sends {
		for i, ack := range send.Acks {
			if ack != send.Acks[0] {
				c.report(Repeated, "the send %s was acknowledged as %v and as %v", send.ClientID, send.Acks[0], ack)
			}
			if i == 0 && !slices.Contains(c.at(ack), ack) {
				c.report(Lost, "%v was acknowledged to %s and is not in the history, or is not what was acknowledged", ack, send.Sender)
			}
		}
	}
}

// at returns what is stored in a message's place.
func (c *checker) at(m Message) []Message {
	stored := c.stored[m.Conversation]
	if m.Seq < 1 || m.Seq > len(stored) {
		return nil
	}
	return stored[m.Seq-1 : m.Seq]
}

// checkTimes checks that a message that was sent after another was acknowledged has a higher number.
func (c *checker) checkTimes() {
	acked := map[string][]*Send{}
	for i, send := range c.history.Sends {
		if len(send.Acks) > 0 {
			id := send.Acks[0].Conversation
			acked[id] = append(acked[id], &c.history.Sends[i])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(acked)) {
		sends := acked[id]
		slices.SortFunc(sends, func(a, b *Send) int { return cmp.Compare(b.Acks[0].Seq, a.Acks[0].Seq) })
		earliest := sends[0] // Of those with higher numbers, the one that was acknowledged first.
		for _, send := range sends[1:] {
			if earliest.Ended.Before(send.Begun) {
				c.report(Overtaken, "%v was sent after %v had been acknowledged", send.Acks[0], earliest.Acks[0])
			}
			if send.Ended.Before(earliest.Ended) {
				earliest = send
			}
		}
	}
}

// checkLogs checks that each user's log has every message of the user's conversations, and no other, in order of their
// numbers.
func (c *checker) checkLogs() {
	for _, view := range c.history.Views {
		logged := map[string][]Message{}
		for _, m := range view.Log {
			logged[m.Conversation] = append(logged[m.Conversation], m)
		}
		for _, conversation := range view.Conversations {
			c.compare(view.User+"'s log, as to conversation "+conversation.ID, logged[conversation.ID], conversation.Messages)
			delete(logged, conversation.ID)
		}
		for _, id := range slices.Sorted(maps.Keys(logged)) {
			c.report(Phantom, "%s's log has %d messages of conversation %s, which is not in the list", view.User, len(logged[id]), id)
		}
	}
}

// checkStream checks that a stream yielded its user's log, or the end of it that the lists did not hold.
func (c *checker) checkStream(s Stream) {
	view := c.views[s.User]
	if view == nil {
		c.report(Phantom, "stream %s is of the unknown user %s", s.Name, s.User)
		return
	}
	want := view.Log
	if s.Late {
		want = c.afterKnown(s, want)
	}
	c.compare("stream "+s.Name+" of "+s.User, s.Messages, want)
}

// afterKnown returns the end of the log that a late stream was to yield: it may begin anywhere, but not after the first
// message that the lists did not hold.
func (c *checker) afterKnown(s Stream, log []Message) []Message {
	known := make(map[string]Message, len(s.Known))
	for _, m := range s.Known {
		known[m.ID] = m
	}
	firstUnknown := len(log)
	for i, m := range log {
		k, ok := known[m.ID]
		if !ok {
			firstUnknown = i
			break
		}
		if k != m {
			c.report(Altered, "%v was listed to %s with other content than in the log", m, s.User)
		}
	}
	if len(s.Messages) == 0 {
		return log[firstUnknown:]
	}
	for i, m := range log[:firstUnknown] {
		if m.ID == s.Messages[0].ID {
			return log[i:]
		}
	}
	return log[firstUnknown:]
}

// compare checks that a sequence is the expected one, and says in what way it is not.
func (c *checker) compare(who string, got, want []Message) {
	place := make(map[string]int, len(want))
	for i, m := range want {
		place[m.ID] = i
	}
	seen := make(map[string]bool, len(got))
	last := -1
	for _, m := range got {
		i, expected := place[m.ID]
		switch {
		case !expected:
			c.report(Phantom, "%s has %v, which it was not to have", who, m)
			continue
		case want[i] != m:
			c.report(Altered, "%s has %v with other content", who, m)
		case seen[m.ID]:
			c.report(Repeated, "%s has %v again", who, m)
		case i < last:
			c.report(Disordered, "%s has %v after %v", who, m, want[last])
		}
		seen[m.ID] = true
		last = max(last, i)
	}
	var missing []Message
	for _, m := range want {
		if !seen[m.ID] {
			missing = append(missing, m)
		}
	}
	if len(missing) > 0 {
		c.report(Lost, "%s lacks %d of %d messages, first %v", who, len(missing), len(want), missing[0])
	}
}

// checkPointers checks that read pointers are where the user's own messages and marks have put them, and that counts
// follow from them.
func (c *checker) checkPointers() {
	type place struct{ user, conversation string }
	want := map[place]int{}
	for id, messages := range c.stored {
		for _, m := range messages {
			p := place{m.Sender, id}
			want[p] = max(want[p], m.Seq)
		}
	}
	for _, mark := range c.history.Marks {
		p := place{mark.User, mark.Conversation}
		want[p] = max(want[p], min(mark.Seq, len(c.stored[mark.Conversation])))
		if mark.ReadSeq < mark.Seq {
			c.report(Unread, "%s marked conversation %s read up to %d and was told %d", mark.User, mark.Conversation, mark.Seq, mark.ReadSeq)
		}
	}
	for _, view := range c.history.Views {
		for _, conversation := range view.Conversations {
			pointer := want[place{view.User, conversation.ID}]
			if unread := len(conversation.Messages) - pointer; conversation.Unread != unread || conversation.ReadSeq != pointer {
				c.report(Unread, "%s sees %d unread after %d in conversation %s; the model says %d after %d",
					view.User, conversation.Unread, conversation.ReadSeq, conversation.ID, unread, pointer)
			}
		}
	}
}
