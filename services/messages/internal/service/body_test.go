package service

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"chatapp.dev/internal/platform/errs"
)

func TestBodiesAreNormalized(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":                {"hello", "hello"},
		"outer white space":    {" \t\n hello \u00a0\u2003\n", "hello"},
		"inner white space":    {"a  b\n\n\tc", "a  b\n\n\tc"},
		"CRLF":                 {"a\r\nb\r\n", "a\nb"},
		"decomposed":           {"e\u0301", "\u00e9"},
		"emoji with joiners":   {"👩‍👩‍👧‍👦", "👩‍👩‍👧‍👦"},
		"marks of direction":   {"\u200fשלום\u200e abc", "\u200fשלום\u200e abc"},
		"CJK":                  {"你好，世界", "你好，世界"},
		"4,000 wide emoji":     {strings.Repeat("🎉", 4000), strings.Repeat("🎉", 4000)},
		"4,000 after trimming": {" " + strings.Repeat("a", 4000) + " ", strings.Repeat("a", 4000)},
		"4,000 after NFC":      {strings.Repeat("e\u0301", 4000), strings.Repeat("\u00e9", 4000)},
	} {
		got, err := normalizeBody(c.in)
		if err != nil || got != c.want {
			t.Errorf("%s: normalizeBody(%.20q) = %.20q, %v; want %.20q", name, c.in, got, err, c.want)
		}
	}
}

func TestBadBodiesAreRefusedByRule(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want errs.Code
	}{
		"empty":            {"", errs.Required},
		"blank":            {" \t\r\n\u2028\u00a0", errs.Required},
		"4,001 characters": {strings.Repeat("a", 4001), errs.TooLong},
		"4,001 emoji":      {strings.Repeat("🎉", 4001), errs.TooLong},
		"NUL":              {"a\x00b", errs.InvalidCharacters},
		"escape":           {"a\x1b[0mb", errs.InvalidCharacters},
		"lone CR":          {"a\rb", errs.InvalidCharacters},
		"C1 control":       {"a\u0090b", errs.InvalidCharacters},
		"invalid UTF-8":    {"a\xffb", errs.InvalidCharacters},
	} {
		_, err := normalizeBody(c.in)
		e, ok := errs.As(err)
		if !ok || e.Kind != errs.Invalid || e.Field != "body" || e.Code != c.want {
			t.Errorf("%s: %v; want a refusal of body by %s", name, err, c.want)
		}
	}
}

func FuzzNormalizeBody(f *testing.F) {
	f.Add("a\r\nb")
	f.Add("e\u0301\x00")
	f.Fuzz(func(t *testing.T, in string) {
		out, err := normalizeBody(in)
		if err != nil {
			return
		}
		if !utf8.ValidString(out) || !norm.NFC.IsNormalString(out) || utf8.RuneCountInString(out) > maxBody || out == "" {
			t.Errorf("normalizeBody(%q) = %q is no stored form", in, out)
		}
		if again, err := normalizeBody(out); err != nil || again != out {
			t.Errorf("normalizeBody is not idempotent: %q then %q, %v", out, again, err)
		}
	})
}
