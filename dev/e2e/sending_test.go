package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/internal/platform/ids"
)

func TestARefusedSendNamesFieldAndRuleAndStoresNothing(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	fine := client.Draft{RecipientID: bob.User.ID, Body: "hello", ClientID: ids.New().String()}
	tests := []struct {
		name        string
		spoil       func(d *client.Draft)
		code, field string
	}{
		{"unknown recipient", func(d *client.Draft) { d.RecipientID = absentID(t, bob.User.ID) }, "NOT_FOUND", "recipientId"},
		{"a recipient that is no id", func(d *client.Draft) { d.RecipientID = "bob" }, "INVALID_FORMAT", "recipientId"},
		{"no recipient", func(d *client.Draft) { d.RecipientID = "" }, "REQUIRED", "recipientId"},
		{"unknown conversation", func(d *client.Draft) {
			d.RecipientID, d.ConversationID = "", absentConversation(t, bob.User.ID)
		}, "NOT_FOUND", "conversationId"},
		{"empty body", func(d *client.Draft) { d.Body = "" }, "REQUIRED", "body"},
		{"blank body", func(d *client.Draft) { d.Body = " \n\t\u00a0\u3000\r\n " }, "REQUIRED", "body"},
		{"4,001 characters", func(d *client.Draft) { d.Body = strings.Repeat("ä", 4001) }, "TOO_LONG", "body"},
		{"4,001 characters beyond 16 bits", func(d *client.Draft) { d.Body = strings.Repeat("🎉", 4001) }, "TOO_LONG", "body"},
		{"NUL", func(d *client.Draft) { d.Body = "a\x00b" }, "INVALID_CHARACTERS", "body"},
		{"bell", func(d *client.Draft) { d.Body = "a\ab" }, "INVALID_CHARACTERS", "body"},
		{"escape", func(d *client.Draft) { d.Body = "a\x1b[31mb" }, "INVALID_CHARACTERS", "body"},
		{"delete", func(d *client.Draft) { d.Body = "a\x7fb" }, "INVALID_CHARACTERS", "body"},
		{"next line, a C1 control", func(d *client.Draft) { d.Body = "a\u0085b" }, "INVALID_CHARACTERS", "body"},
		{"carriage return alone", func(d *client.Draft) { d.Body = "a\rb" }, "INVALID_CHARACTERS", "body"},
		{"vertical tab", func(d *client.Draft) { d.Body = "a\vb" }, "INVALID_CHARACTERS", "body"},
		{"missing client id", func(d *client.Draft) { d.ClientID = "" }, "REQUIRED", "clientId"},
		{"malformed client id", func(d *client.Draft) { d.ClientID = "1234" }, "INVALID_FORMAT", "clientId"},
		{"a client id that is almost a UUID", func(d *client.Draft) { d.ClientID += "0" }, "INVALID_FORMAT", "clientId"},
	}
	for i, tt := range tests {
		d := fine
		tt.spoil(&d)
		_, err := at(stack, ann)[i%len(stack.Graphs)].Send(t.Context(), d)
		refused := refusal(t, err)
		if len(refused) != 1 || refused[0].Code != tt.code || !slices.Equal(refused[0].Field, []string{tt.field}) || refused[0].Message == "" {
			t.Errorf("%s: refused with %+v, want %s of %s", tt.name, refused, tt.code, tt.field)
		}
	}
	// An explicit null is as good as absence, and an empty text as good as null.
	for _, nothing := range []any{nil, ""} {
		text := answer(t, ann, client.SendQuery, map[string]any{"input": map[string]any{
			"recipientId": bob.User.ID, "body": "hello", "clientId": nothing,
		}})
		if !strings.Contains(text, `"REQUIRED"`) || !strings.Contains(text, `"clientId"`) {
			t.Errorf("with the clientId %#v the answer is %s", nothing, text)
		}
	}

	for _, c := range []*client.Client{ann, bob} {
		if all, err := c.AllConversations(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("%s has the conversations %v, %v after refusals only", c.User.Username, all, err)
		}
	}
	// The client id of what was refused stands for nothing.
	if m, err := ann.Send(t.Context(), fine); err != nil || m.Seq != 1 {
		t.Errorf("after the refusals the message is %+v, %v", m, err)
	}
}

// absentConversation makes the id of a conversation that does not exist out of a user's.
func absentConversation(t *testing.T, userID string) string {
	t.Helper()
	return retype(t, absentID(t, userID), 'c')
}

func TestInvalidUTF8IsRefusedWith400AndStoresNothing(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	request, err := json.Marshal(map[string]any{"query": client.SendQuery, "variables": map[string]any{"input": client.Draft{
		RecipientID: bob.User.ID, Body: "HERE", ClientID: ids.New().String(),
	}.Input()}})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"a stray continuation byte": "a\x80b", "a cut sequence": "a\xe2\x82", "an overlong slash": "\xc0\xaf",
		"a surrogate in UTF-8": "\xed\xa0\x80", "beyond Unicode": "\xf5\x80\x80\x80", "an unpaired surrogate as escape": `a\ud800b`,
	} {
		status, text, err := ann.Post(t.Context(), bytes.Replace(request, []byte("HERE"), []byte(bad), 1))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var response struct {
			Data   any
			Errors []client.ResponseError
		}
		if err := json.Unmarshal(text, &response); err != nil || status != http.StatusBadRequest ||
			len(response.Errors) != 1 || response.Errors[0].Extensions.Code != "BAD_USER_INPUT" || response.Data != nil {
			t.Errorf("%s: the answer is %d %s", name, status, text)
		}
	}
	if c, err := ann.ConversationWith(t.Context(), bob.User.ID); c != nil || err != nil {
		t.Errorf("after refusals only there is the conversation %v, %v", c, err)
	}
}

func TestTextComesBackByteForByteInNFC(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	tests := []struct{ name, sent, want string }{
		{"plain", "hello", "hello"},
		{"emoji", "👍🏽 👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪 ❤️", "👍🏽 👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪 ❤️"},
		{"composed", "caf\u00e9 \u00c5", "caf\u00e9 \u00c5"},
		{"decomposed", "cafe\u0301 A\u030a", "caf\u00e9 \u00c5"},
		{"marks that do not compose, in canonical order", "q\u0323\u0307 \u0e01\u0e49", "q\u0323\u0307 \u0e01\u0e49"},
		{"marks in another order", "q\u0307\u0323", "q\u0323\u0307"},
		{"Hangul", "\u1112\u1161\u11ab", "\ud55c"},
		{"right to left", "שלום עולם مرحبا بالعالم", "שלום עולם مرحبا بالعالم"},
		{"direction marks and joiners", "a\u200e\u200fb\u202ec\u202c\u2066d\u2069 \u200d\u200c", "a\u200e\u200fb\u202ec\u202c\u2066d\u2069 \u200d\u200c"},
		{"CJK, some beyond 16 bits", "你好，世界 こんにちは 𠮷野家 𩸽", "你好，世界 こんにちは 𠮷野家 𩸽"},
		{"tab and newline", "a\tb\n\nc", "a\tb\n\nc"},
		{"CRLF", "a\r\nb\r\n\r\nc", "a\nb\n\nc"},
		{"outer white space", "\r\n\t \u00a0\u2003 a b \u3000\n", "a b"},
		{"inner white space", "a \u00a0  b", "a \u00a0  b"},
		{"what other languages read", `'; DROP TABLE messages; -- "\" \u0041 <script>%s%00 ${x} \` + "`", `'; DROP TABLE messages; -- "\" \u0041 <script>%s%00 ${x} \` + "`"},
		{"4,000 characters beyond 16 bits", strings.Repeat("🎉", 4000), strings.Repeat("🎉", 4000)},
		{"4,000 characters once composed and trimmed", " " + strings.Repeat("e\u0301", 4000) + " ", strings.Repeat("\u00e9", 4000)},
	}
	s := follow(t, bob, cursor(t, bob), stack.Endpoints()[1])
	var sent []client.Message
	for _, tt := range tests {
		m := send(t, ann, bob, tt.sent)
		if m.Body != tt.want {
			t.Errorf("%s: the sender gets %+.200q, want %+.200q", tt.name, m.Body, tt.want)
		}
		sent = append(sent, m)
	}
	listed := history(t, bob, sent[0].ConversationID)
	events := s.count(t, len(tests))
	for i, tt := range tests {
		if got := listed[i].Body; got != tt.want {
			t.Errorf("%s: the history has %+.200q, want %+.200q", tt.name, got, tt.want)
		}
		if got := events[i].Message.Body; got != tt.want {
			t.Errorf("%s: the subscription has %+.200q, want %+.200q", tt.name, got, tt.want)
		}
		m, err := bob.Message(t.Context(), sent[i].ID)
		if err != nil || m == nil || m.Body != tt.want {
			t.Errorf("%s: the message is %+v, %v", tt.name, m, err)
		}
	}
}

func TestTheSameClientIDFiftyTimesAtOnceThroughTwoGraphsIsOneMessageAndOneAnswer(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	s := follow(t, bob, cursor(t, bob))
	// The first round also races to make the conversation.
	for round := range 3 {
		d := client.Draft{RecipientID: bob.User.ID, Body: fmt.Sprint("once, round ", round), ClientID: ids.New().String()}
		var (
			mu      sync.Mutex
			answers []client.Message
		)
		parallel(50, func(i int) {
			m, err := at(stack, ann)[i%len(stack.Graphs)].Send(t.Context(), d)
			if err != nil {
				t.Errorf("round %d, attempt %d: %v", round, i, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, m)
		})
		for _, m := range answers {
			if m.ID != answers[0].ID || m.Seq != round+1 || m.Body != d.Body || !m.SentAt.Equal(answers[0].SentAt) || *m.ClientID != d.ClientID {
				t.Fatalf("round %d: one answer is %+v and another %+v", round, answers[0], m)
			}
		}
	}
	if t.Failed() {
		return
	}
	last := send(t, ann, bob, "that was all")
	want := []string{"once, round 0", "once, round 1", "once, round 2", "that was all"}
	if got := bodies(s.until(t, last)); !slices.Equal(got, want) {
		t.Errorf("the recipient's subscription has %q, want %q", got, want)
	}
	if got := history(t, bob, last.ConversationID); len(got) != len(want) {
		t.Errorf("the history has %d messages, want %d", len(got), len(want))
	}
}

func TestTheSameClientIDWithAnotherBodyIsAConflict(t *testing.T) {
	t.Parallel()
	stack := sharedFor(t)
	ann, bob, cat := account(t, stack, "Ann"), account(t, stack, "Bob"), account(t, stack, "Cat")
	d := client.Draft{RecipientID: bob.User.ID, Body: "café", ClientID: ids.New().String()}
	first, err := ann.Send(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		change   func(d *client.Draft)
		conflict bool
	}{
		{"the same again", func(*client.Draft) {}, false},
		{"addressed by conversation", func(d *client.Draft) { d.RecipientID, d.ConversationID = "", first.ConversationID }, false},
		{"the same text before it is normalised", func(d *client.Draft) { d.Body = "  cafe\u0301\r\n" }, false},
		{"the same id in upper case", func(d *client.Draft) { d.ClientID = strings.ToUpper(d.ClientID) }, false},
		{"other text", func(d *client.Draft) { d.Body = "tea" }, true},
		{"text that collations call equal", func(d *client.Draft) { d.Body = "CAFE" }, true},
		{"text that differs in a trailing mark", func(d *client.Draft) { d.Body = "café\u200b" }, true},
		{"other recipient", func(d *client.Draft) { d.RecipientID = cat.User.ID }, true},
		{"oneself", func(d *client.Draft) { d.RecipientID = ann.User.ID }, true},
	}
	for i, tt := range tests {
		again := d
		tt.change(&again)
		m, err := at(stack, ann)[i%len(stack.Graphs)].Send(t.Context(), again)
		if !tt.conflict {
			if err != nil || m.ID != first.ID {
				t.Errorf("%s: got %+v, %v; want the first message", tt.name, m, err)
			}
			continue
		}
		if refused := refusal(t, err); refused[0].Code != "CONFLICT" || !slices.Equal(refused[0].Field, []string{"clientId"}) {
			t.Errorf("%s: refused with %v", tt.name, refused)
		}
	}
	// The id is the sender's own: for somebody else it is free.
	if m, err := bob.Send(t.Context(), client.Draft{RecipientID: ann.User.ID, Body: "tea", ClientID: d.ClientID}); err != nil || m.Seq != 2 {
		t.Errorf("another sender's message under the same id is %+v, %v", m, err)
	}
	if got := history(t, ann, first.ConversationID); len(got) != 2 {
		t.Errorf("the history has %d messages, want 2", len(got))
	}
}
