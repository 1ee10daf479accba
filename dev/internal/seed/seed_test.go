package seed

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestPairsAreDifferentAndEven(t *testing.T) {
	for people := 1; people <= 9; people++ {
		for count := 0; count <= MaxConversations(people); count++ {
			seen := map[[2]int]bool{}
			conversations := make([]int, people) // Of each, with others.
			for a, b := range pairs(people, count) {
				if seen[[2]int{a, b}] || (a != b && seen[[2]int{b, a}]) {
					t.Fatalf("%d people, %d pairs: %d and %d twice", people, count, a, b)
				}
				seen[[2]int{a, b}] = true
				if a != b {
					conversations[a]++
					conversations[b]++
				}
			}
			if len(seen) != count {
				t.Fatalf("%d people: %d pairs, want %d", people, len(seen), count)
			}
			least, most := conversations[0], conversations[0]
			for _, n := range conversations {
				least, most = min(least, n), max(most, n)
			}
			if most-least > 2 {
				t.Errorf("%d people, %d pairs: from %d to %d conversations each", people, count, least, most)
			}
		}
	}
}

func TestSharesAddUp(t *testing.T) {
	for messages := range 30 {
		for conversations := 1; conversations <= 7; conversations++ {
			sum := 0
			for i := range conversations {
				sum += share(messages, conversations, i)
			}
			if sum != messages {
				t.Errorf("%d messages in %d conversations: the shares are %d together", messages, conversations, sum)
			}
		}
	}
}

// TestTextsAreVariedAndValid looks at what the messages service would refuse or change: the texts must come back as they
// are.
func TestTextsAreVariedAndValid(t *testing.T) {
	scripts := map[string]*unicode.RangeTable{
		"Latin": unicode.Latin, "Cyrillic": unicode.Cyrillic, "Greek": unicode.Greek, "Arabic": unicode.Arabic,
		"Hebrew": unicode.Hebrew, "Devanagari": unicode.Devanagari, "Han": unicode.Han, "Hiragana": unicode.Hiragana,
		"Hangul": unicode.Hangul, "emoji": unicode.So,
	}
	found := map[string]bool{}
	var short, long, full, lines int
	r := source(1, streamTexts, 0)
	for range 5000 {
		body := text(r)
		n := utf8.RuneCountInString(body)
		switch {
		case body == "" || body != strings.TrimFunc(body, unicode.IsSpace):
			t.Fatalf("empty, or white space around it: %q", body)
		case n > maxBody:
			t.Fatalf("%d characters: %q", n, body)
		case !norm.NFC.IsNormalString(body):
			t.Fatalf("not in NFC: %q", body)
		case strings.ContainsFunc(body, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }):
			t.Fatalf("a control character: %q", body)
		}
		for name, table := range scripts {
			if strings.ContainsFunc(body, func(r rune) bool { return unicode.Is(table, r) }) {
				found[name] = true
			}
		}
		if n < 40 {
			short++
		}
		if n > 400 {
			long++
		}
		if n > maxBody-200 {
			full++
		}
		if strings.Contains(body, "\n") {
			lines++
		}
	}
	if len(found) != len(scripts) {
		t.Errorf("only these scripts: %v", found)
	}
	if short == 0 || long == 0 || full == 0 || lines == 0 {
		t.Errorf("%d short, %d long, %d full, %d of several lines", short, long, full, lines)
	}
}

func TestTheSameSeedGivesTheSame(t *testing.T) {
	type made struct{ name, text string }
	makeOf := func(seed uint64, i int) made {
		return made{name(source(seed, streamNames, i)), text(source(seed, streamTexts, i))}
	}
	others := 0
	for i := range 50 {
		if a, b := makeOf(7, i), makeOf(7, i); a != b {
			t.Errorf("seed 7 gives %+v and %+v", a, b)
		}
		if makeOf(7, i) == makeOf(8, i) {
			others++
		}
	}
	if others > 5 {
		t.Errorf("seeds 7 and 8 give the same in %d of 50 cases", others)
	}
}

func TestNamesAreValid(t *testing.T) {
	for i := range 2000 {
		n := name(source(1, streamNames, i))
		if !norm.NFC.IsNormalString(n) || utf8.RuneCountInString(n) > 64 || strings.ContainsRune(n, utf8.RuneError) {
			t.Errorf("name %q", n)
		}
	}
}
