package torture

import (
	"slices"
	"testing"
	"time"
)

// world is a small history without any violation, for tests to break: ann and bob talk, and ann makes a note.
//
//	ab: 1 ann "one", 2 bob "two", 3 ann "three"    ann has read all, bob up to 2
//	aa: 1 ann "note"
func world() *History {
	begin := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }
	one := Message{ID: "m1", Conversation: "ab", Seq: 1, Sender: "ann", Body: "one"}
	two := Message{ID: "m2", Conversation: "ab", Seq: 2, Sender: "bob", Body: "two"}
	three := Message{ID: "m3", Conversation: "ab", Seq: 3, Sender: "ann", Body: "three"}
	note := Message{ID: "n1", Conversation: "aa", Seq: 1, Sender: "ann", Body: "note"}
	annLog, bobLog := []Message{one, two, note, three}, []Message{one, two, three}
	return &History{
		Sends: []Send{
			{ClientID: "c1", Sender: "ann", Recipient: "bob", Body: "one", Begun: at(0), Ended: at(1), Acks: []Message{one}},
			{ClientID: "c2", Sender: "bob", Recipient: "ann", Body: "two", Begun: at(2), Ended: at(4), Acks: []Message{two, two}},
			{ClientID: "c3", Sender: "ann", Recipient: "bob", Body: "three", Begun: at(3), Ended: at(5), Acks: []Message{three}},
			{ClientID: "c4", Sender: "ann", Recipient: "ann", Body: "note", Begun: at(3), Ended: at(5), Acks: []Message{note}},
			{ClientID: "c5", Sender: "bob", Recipient: "ann", Body: "given up", Begun: at(3)},
		},
		Marks: []Mark{{User: "bob", Conversation: "ab", Seq: 1, ReadSeq: 2}},
		Streams: []Stream{
			{User: "ann", Name: "1", Messages: slices.Clone(annLog)},
			{User: "bob", Name: "1", Messages: slices.Clone(bobLog)},
			{User: "ann", Name: "late", Late: true, Known: []Message{one, two, note}, Messages: []Message{two, note, three}},
			{User: "bob", Name: "last", Late: true, Known: slices.Clone(bobLog)},
		},
		Views: []View{
			{User: "ann", Log: slices.Clone(annLog), Conversations: []Conversation{
				{ID: "ab", With: "bob", Unread: 0, ReadSeq: 3, Messages: []Message{one, two, three}},
				{ID: "aa", With: "ann", Unread: 0, ReadSeq: 1, Messages: []Message{note}},
			}},
			{User: "bob", Log: slices.Clone(bobLog), Conversations: []Conversation{
				{ID: "ab", With: "ann", Unread: 1, ReadSeq: 2, Messages: []Message{one, two, three}},
			}},
		},
	}
}

// without returns messages without the one in a place.
func without(messages []Message, i int) []Message {
	return slices.Delete(slices.Clone(messages), i, i+1)
}

func TestCheckFindsEachViolation(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(h *History)
		want  []Kind // All kinds that are reported, without repeats, in any order.
	}{
		{"nothing wrong", func(*History) {}, nil},
		{"a sender gave up, and the message is stored all the same", func(h *History) {
			m := Message{ID: "m4", Conversation: "ab", Seq: 4, Sender: "bob", Body: "given up"}
			for v := range h.Views {
				h.Views[v].Log = append(h.Views[v].Log, m)
				h.Views[v].Conversations[0].Messages = append(h.Views[v].Conversations[0].Messages, m)
			}
			for s := range h.Streams {
				h.Streams[s].Messages = append(h.Streams[s].Messages, m)
			}
			h.Views[0].Conversations[0].Unread = 1
			h.Views[1].Conversations[0].Unread, h.Views[1].Conversations[0].ReadSeq = 0, 4
		}, nil},
		{"an acknowledged message is gone from everywhere", func(h *History) {
			for v := range h.Views {
				h.Views[v].Log = without(h.Views[v].Log, len(h.Views[v].Log)-1)
				h.Views[v].Conversations[0].Messages = without(h.Views[v].Conversations[0].Messages, 2)
			}
			for s := range h.Streams[:3] {
				h.Streams[s].Messages = without(h.Streams[s].Messages, len(h.Streams[s].Messages)-1)
			}
			h.Streams[3].Known = without(h.Streams[3].Known, 2)
			h.Views[0].Conversations[0].ReadSeq, h.Views[1].Conversations[0].Unread = 1, 0
			h.Views[0].Conversations[0].Unread = 1
		}, []Kind{Lost}},
		{"a stream misses the last message", func(h *History) {
			h.Streams[1].Messages = without(h.Streams[1].Messages, 2)
		}, []Kind{Lost}},
		{"a stream misses a message in the middle", func(h *History) {
			h.Streams[0].Messages = without(h.Streams[0].Messages, 1)
		}, []Kind{Lost}},
		{"a stream yields a message twice", func(h *History) {
			h.Streams[0].Messages = append(h.Streams[0].Messages, h.Streams[0].Messages[1])
		}, []Kind{Repeated}},
		{"a stream yields two messages of one conversation in the wrong order", func(h *History) {
			m := h.Streams[1].Messages
			m[0], m[1] = m[1], m[0]
		}, []Kind{Disordered}},
		{"a stream yields messages of two conversations in another order than the log", func(h *History) {
			m := h.Streams[0].Messages
			m[2], m[3] = m[3], m[2]
		}, []Kind{Disordered}},
		{"a stream yields what is for others", func(h *History) {
			h.Streams[1].Messages = append(h.Streams[1].Messages, h.Streams[0].Messages[2])
		}, []Kind{Phantom}},
		{"a stream yields another text", func(h *History) { h.Streams[1].Messages[2].Body = "four" }, []Kind{Altered}},
		{"a late stream misses what came between the cursor and the list", func(h *History) {
			h.Streams[2].Known = h.Streams[2].Known[:1]
			h.Streams[2].Messages = h.Streams[2].Messages[1:]
		}, []Kind{Lost}},
		{"a late stream yields nothing although the lists lack something", func(h *History) {
			h.Streams[3].Known = h.Streams[3].Known[:2]
		}, []Kind{Lost}},
		{"a late stream has a gap", func(h *History) {
			h.Streams[2].Messages = without(h.Streams[2].Messages, 1)
		}, []Kind{Lost}},
		{"a message is in the history but not in a log", func(h *History) {
			h.Views[1].Log = without(h.Views[1].Log, 1)
			h.Streams[1].Messages = without(h.Streams[1].Messages, 1)
		}, []Kind{Lost}},
		{"a log and its streams have a message twice", func(h *History) {
			h.Views[1].Log = append(h.Views[1].Log, h.Views[1].Log[2])
		}, []Kind{Repeated}},
		{"a log tells of a conversation that is not listed", func(h *History) {
			h.Views[0].Conversations = h.Views[0].Conversations[:1]
		}, []Kind{Lost, Phantom}},
		{"a history has a gap for one user", func(h *History) {
			h.Views[1].Conversations[0].Messages = without(h.Views[1].Conversations[0].Messages, 1)
			h.Views[1].Conversations[0].Unread = 0
		}, []Kind{Gap, Altered, Phantom}},
		{"one send is stored twice", func(h *History) {
			again := Message{ID: "n2", Conversation: "aa", Seq: 2, Sender: "ann", Body: "note"}
			h.Views[0].Log = append(h.Views[0].Log, again)
			h.Views[0].Conversations[1].Messages = append(h.Views[0].Conversations[1].Messages, again)
			h.Views[0].Conversations[1].ReadSeq = 2
			h.Streams[0].Messages = append(h.Streams[0].Messages, again)
			h.Streams[2].Messages = append(h.Streams[2].Messages, again)
		}, []Kind{Repeated}},
		{"a repeat is acknowledged as another message", func(h *History) {
			h.Sends[1].Acks[1].Seq, h.Sends[1].Acks[1].ID = 3, "m3"
		}, []Kind{Repeated}},
		{"nobody sent a message", func(h *History) { h.Sends = h.Sends[:3] }, []Kind{Phantom}},
		{"a message is shown as from somebody else", func(h *History) {
			h.Sends[0].Sender, h.Sends[0].Recipient = "bob", "ann"
		}, []Kind{Altered}},
		{"a message went to somebody else", func(h *History) { h.Sends[3].Recipient = "eve" }, []Kind{Phantom}},
		{"a message stands before one that was acknowledged earlier", func(h *History) {
			h.Sends[0].Begun, h.Sends[0].Ended = h.Sends[2].Ended.Add(time.Second), h.Sends[2].Ended.Add(2*time.Second)
		}, []Kind{Overtaken}},
		{"an unread count is wrong", func(h *History) { h.Views[1].Conversations[0].Unread = 2 }, []Kind{Unread}},
		{"a read pointer moved back", func(h *History) {
			h.Marks = append(h.Marks, Mark{User: "bob", Conversation: "ab", Seq: 3, ReadSeq: 3})
		}, []Kind{Unread}},
		{"a mark was acknowledged without effect", func(h *History) { h.Marks[0].ReadSeq = 0 }, []Kind{Unread}},
		{"events were never published", func(h *History) { h.Unrelayed = 3 }, []Kind{Unrelayed}},
		{"a client was told nonsense", func(h *History) {
			h.Mishaps = []Violation{{Kind: Mishap, What: "INTERNAL_SERVER_ERROR"}}
		}, []Kind{Mishap}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := world()
			tt.spoil(h)
			violations := Check(*h)
			var got []Kind
			for _, v := range violations {
				got = append(got, v.Kind)
			}
			slices.Sort(got)
			got = slices.Compact(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want the kinds %v", violations, tt.want)
			}
		})
	}
}
