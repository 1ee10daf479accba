package transport

import (
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func TestNegotiate(t *testing.T) {
	for _, test := range []struct {
		accept []string
		want   string
	}{
		{nil, mediaGraphQL},
		{[]string{"*/*"}, mediaGraphQL},
		{[]string{"application/*"}, mediaGraphQL},
		{[]string{"application/json"}, mediaJSON},
		{[]string{"application/graphql-response+json"}, mediaGraphQL},
		{[]string{"application/graphql-response+json; charset=utf-8, application/json; charset=utf-8"}, mediaGraphQL},
		{[]string{"application/json, application/graphql-response+json"}, mediaGraphQL},
		{[]string{"application/graphql-response+json,application/json;q=0.9"}, mediaGraphQL},
		{[]string{"application/graphql-response+json;q=0.5", "application/json"}, mediaJSON},
		{[]string{"application/json, text/plain, */*"}, mediaJSON},
		{[]string{"application/json;q=0.5, */*"}, mediaGraphQL},
		{[]string{"APPLICATION/JSON"}, mediaJSON},
		{[]string{"text/html"}, ""},
		{[]string{"application/json;q=0"}, ""},
		{[]string{"application/json; charset=latin1"}, ""},
		{[]string{"application/json;q=NaN"}, ""},
		{[]string{""}, ""},
		{[]string{"/, ,application/json"}, mediaJSON},
	} {
		got, ok := negotiate(test.accept)
		if got != test.want || ok != (test.want != "") {
			t.Errorf("%q: %q, %v, want %q", test.accept, got, ok, test.want)
		}
	}
}

// FuzzCheckJSON holds that a string which passes is decoded without a replacement that it did not ask for.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`"plain"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `"\\ud83d"`, `"\\\ud83d"`, `"\ud83d\\ude00"`, `"\uD83D\uDE00"`,
		`"\ud83d\ud83d\ude00"`, `"\u12"`, `"\`, "\"\xff\"", `"\ufffd"`, `"a\ud83d\u0041"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var decoded string
		if checkJSON(raw) != nil || json.Unmarshal(raw, &decoded) != nil {
			return
		}
		wanted := 0
		for i := 0; i < len(raw); i++ {
			switch {
			case raw[i] == '\\':
				if unit, ok := escapedUnit(raw[i:]); ok && unit == utf8.RuneError {
					wanted++
				}
				i++
			case i+3 <= len(raw) && string(raw[i:i+3]) == "\ufffd":
				wanted++
			}
		}
		got := 0
		for _, r := range decoded {
			if r == utf8.RuneError {
				got++
			}
		}
		if got != wanted {
			t.Errorf("%q is decoded as %q: %d replacement characters, not %d", raw, decoded, got, wanted)
		}
	})
}

func TestLiterals(t *testing.T) {
	for query, want := range map[string]bool{
		`{ a(b: "\ud83d\ude00") }`:         false,
		`{ a(b: "\ud83d") }`:               true,
		`{ a(b: "😀 \ud83d") }`:             true,
		`{ a(b: "\ude00\ud83d") }`:         true,
		`{ a(b: "\\ud83d") }`:              false,
		`{ a(b: """\ud83d""") }`:           false,
		"{ a } # \\ud83d":                  false,
		`{ a(b: "\u{1F600}") }`:            false,
		`{ a(b: "x" c: "\ud83dx" d: "y")}`: true,
		`{ a(b: "\ud83d`:                   false,
	} {
		if got := hasLoneSurrogateLiteral(query); got != want {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
}
