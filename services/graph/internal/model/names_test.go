package model

import (
	"encoding/base64"
	"math"
	"testing"

	"chatapp.dev/internal/platform/ids"
)

func TestGlobalIDsComeBack(t *testing.T) {
	seen := map[string]bool{}
	uuid := ids.New()
	for _, id := range []GlobalID{
		{Kind: KindUser, UUID: uuid},
		{Kind: KindConversation, UUID: uuid},
		{Kind: KindMessage, UUID: uuid, Seq: 1},
		{Kind: KindMessage, UUID: uuid, Seq: math.MaxInt64},
	} {
		text := id.String()
		if seen[text] {
			t.Errorf("%q names two things", text)
		}
		seen[text] = true
		if got, ok := ParseGlobalID(text); !ok || got != id {
			t.Errorf("%+v comes back as %+v, %v", id, got, ok)
		}
	}
}

func TestGlobalIDsNeverChange(t *testing.T) {
	uuid, err := ids.Parse("01890a5d-ac96-774b-bcce-b302099a8057")
	if err != nil {
		t.Fatal(err)
	}
	for want, id := range map[string]GlobalID{
		"dQGJCl2slndLvM6zAgmagFc":            {Kind: KindUser, UUID: uuid},
		"YwGJCl2slndLvM6zAgmagFc":            {Kind: KindConversation, UUID: uuid},
		"bQGJCl2slndLvM6zAgmagFcAAAAAAAAAKg": {Kind: KindMessage, UUID: uuid, Seq: 42},
	} {
		if got := id.String(); got != want {
			t.Errorf("%+v is %q, and clients have kept %q", id, got, want)
		}
	}
}

func TestTextsThatAreNoGlobalID(t *testing.T) {
	user := GlobalID{Kind: KindUser, UUID: ids.New()}.String()
	message := GlobalID{Kind: KindMessage, UUID: ids.New(), Seq: 1}.String()
	raw := func(b ...byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	for _, text := range []string{
		"", "x", user[1:], user + "A", user + "=", user + "\n", user[:10] + "\n" + user[10:], " " + user, message + "AA",
		message[:len(message)-1], raw('u'), raw(append([]byte{'x'}, make([]byte, 16)...)...),
		raw(append([]byte{'m'}, make([]byte, 16)...)...), // No seq.
		raw(append([]byte{'m'}, make([]byte, 24)...)...), // Seq 0.
		raw(append([]byte{'u'}, make([]byte, 24)...)...), // A seq too many.
		GlobalID{Kind: KindMessage, UUID: ids.New(), Seq: -1}.String(),
		user[:len(user)-1] + "_", // Bits beyond the last byte.
	} {
		if id, ok := ParseGlobalID(text); ok {
			t.Errorf("%q is taken for %+v", text, id)
		}
	}
	if _, ok := ParseIDOf(KindConversation, user); ok {
		t.Error("a user is taken for a conversation")
	}
}

func TestCursorsComeBack(t *testing.T) {
	for _, seq := range []int64{1, 15, math.MaxInt64} {
		if got, ok := ParseMessageCursor(MessageCursor(seq)); !ok || got != seq {
			t.Errorf("%d comes back as %d, %v", seq, got, ok)
		}
	}
	for _, name := range []string{"a", "ada", "user_with-a.name"} {
		if got, ok := ParseUserCursor(UserCursor(name)); !ok || got != name {
			t.Errorf("%q comes back as %q, %v", name, got, ok)
		}
	}
	position := ConversationPosition{LastMessageAtUs: 1748770200123456, ConversationID: ids.New()}
	if got, ok := ParseConversationCursor(position.Cursor()); !ok || got != position {
		t.Errorf("%+v comes back as %+v, %v", position, got, ok)
	}
}

func TestCursorsOfOneListAreNoneOfAnother(t *testing.T) {
	position := ConversationPosition{LastMessageAtUs: 1, ConversationID: ids.New()}
	for _, text := range []string{
		"", MessageCursor(0), MessageCursor(-1), UserCursor(""), UserCursor("\xff"), "###",
		ConversationPosition{LastMessageAtUs: -1}.Cursor(), ConversationPosition{LastMessageAtUs: math.MaxInt64}.Cursor(),
		MessageCursor(1), UserCursor("ada"), position.Cursor(),
	} {
		accepted := 0
		if _, ok := ParseMessageCursor(text); ok {
			accepted++
		}
		if _, ok := ParseUserCursor(text); ok {
			accepted++
		}
		if _, ok := ParseConversationCursor(text); ok {
			accepted++
		}
		good := text == MessageCursor(1) || text == UserCursor("ada") || text == position.Cursor()
		if want := map[bool]int{true: 1, false: 0}[good]; accepted != want {
			t.Errorf("%q is accepted by %d lists, not %d", text, accepted, want)
		}
	}
}

func FuzzParseGlobalID(f *testing.F) {
	f.Add(GlobalID{Kind: KindUser, UUID: ids.New()}.String())
	f.Add(GlobalID{Kind: KindMessage, UUID: ids.New(), Seq: 7}.String())
	f.Add("dQGJCl2slndLvM6zAgmagF")
	f.Fuzz(func(t *testing.T, text string) {
		if id, ok := ParseGlobalID(text); ok && id.String() != text {
			t.Errorf("%q and %q are the same thing", text, id.String())
		}
	})
}

func FuzzParseCursors(f *testing.F) {
	f.Add(MessageCursor(7))
	f.Add(UserCursor("ada"))
	f.Add(ConversationPosition{LastMessageAtUs: 1, ConversationID: ids.New()}.Cursor())
	f.Fuzz(func(t *testing.T, text string) {
		if seq, ok := ParseMessageCursor(text); ok && MessageCursor(seq) != text {
			t.Errorf("%q comes back as %q", text, MessageCursor(seq))
		}
		if name, ok := ParseUserCursor(text); ok && UserCursor(name) != text {
			t.Errorf("%q comes back as %q", text, UserCursor(name))
		}
		if position, ok := ParseConversationCursor(text); ok && position.Cursor() != text {
			t.Errorf("%q comes back as %q", text, position.Cursor())
		}
	})
}
