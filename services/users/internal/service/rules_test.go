package service

import (
	"strings"
	"testing"

	"chatapp.dev/internal/platform/errs"
)

// expectRule checks that an error names the rule and the field, or that there is none when the code is empty.
func expectRule(t *testing.T, err error, code errs.Code, field string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("err = %v, want none", err)
		}
		return
	}
	broken, ok := errs.As(err)
	if !ok {
		t.Fatalf("err = %v, want the rule %s", err, code)
	}
	if broken.Kind != errs.Invalid || broken.Code != code || broken.Field != field || broken.Message == "" {
		t.Errorf("kind %v, code %s, field %q, message %q; want %v, %s, %q and a message",
			broken.Kind, broken.Code, broken.Field, broken.Message, errs.Invalid, code, field)
	}
}

func TestUsernameRule(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		given, want string
		code        errs.Code
	}{
		"plain":               {"alice", "alice", ""},
		"every kind":          {"a.b_c-9", "a.b_c-9", ""},
		"only signs":          {"...", "...", ""},
		"upper case":          {"AliCE", "alice", ""},
		"shortest":            {"abc", "abc", ""},
		"longest":             {strings.Repeat("a", 32), strings.Repeat("a", 32), ""},
		"empty":               {"", "", errs.Required},
		"too short":           {"ab", "", errs.TooShort},
		"too long":            {strings.Repeat("a", 33), "", errs.TooLong},
		"inner space":         {"al ice", "", errs.InvalidCharacters},
		"outer space":         {" alice", "", errs.InvalidCharacters},
		"trailing newline":    {"alice\n", "", errs.InvalidCharacters},
		"at sign":             {"alice@example.com", "", errs.InvalidCharacters},
		"NUL":                 {"alice\x00", "", errs.InvalidCharacters},
		"accent":              {"alicé", "", errs.InvalidCharacters},
		"Kelvin sign":         {"mi\u212ae", "", errs.InvalidCharacters},
		"dotted capital I":    {"al\u0130ce", "", errs.InvalidCharacters},
		"full-width":          {"ａｌｉｃｅ", "", errs.InvalidCharacters},
		"Cyrillic look-alike": {"\u0430lice", "", errs.InvalidCharacters},
		"one character":       {"é", "", errs.InvalidCharacters},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := checkUsername(test.given)
			expectRule(t, err, test.code, "username")
			if got != test.want {
				t.Errorf("username = %q, want %q", got, test.want)
			}
		})
	}
}

func TestEmailRule(t *testing.T) {
	t.Parallel()
	domain := strings.Repeat(strings.Repeat("d", 49)+".", 4) + "example.com" // 211 bytes
	tests := map[string]struct {
		given, want string
		code        errs.Code
	}{
		"plain":              {"alice@example.com", "alice@example.com", ""},
		"upper case":         {"Alice@EXAMPLE.com", "alice@example.com", ""},
		"tag and dots":       {"a.b+tag@mail.example.co.uk", "a.b+tag@mail.example.co.uk", ""},
		"no dot in domain":   {"alice@localhost", "alice@localhost", ""},
		"international":      {"Jose\u0301@Exämple.com", "josé@exämple.com", ""},
		"longest":            {strings.Repeat("a", 42) + "@" + domain, strings.Repeat("a", 42) + "@" + domain, ""},
		"too long":           {strings.Repeat("a", 43) + "@" + domain, "", errs.TooLong},
		"empty":              {"", "", errs.Required},
		"no at sign":         {"alice", "", errs.InvalidFormat},
		"no local part":      {"@example.com", "", errs.InvalidFormat},
		"no domain":          {"alice@", "", errs.InvalidFormat},
		"two at signs":       {"a@b@example.com", "", errs.InvalidFormat},
		"display name":       {"Alice <alice@example.com>", "", errs.InvalidFormat},
		"angle brackets":     {"<alice@example.com>", "", errs.InvalidFormat},
		"quoted local part":  {`"a b"@example.com`, "", errs.InvalidFormat},
		"comment":            {"alice@example.com (Alice)", "", errs.InvalidFormat},
		"two addresses":      {"a@example.com, b@example.com", "", errs.InvalidFormat},
		"outer space":        {" alice@example.com", "", errs.InvalidFormat},
		"inner space":        {"al ice@example.com", "", errs.InvalidFormat},
		"header injection":   {"alice@example.com\r\nBcc: x@example.com", "", errs.InvalidFormat},
		"NUL":                {"al\x00ice@example.com", "", errs.InvalidFormat},
		"zero-width space":   {"al\u200bice@example.com", "", errs.InvalidFormat},
		"no-break space":     {"al\u00a0ice@example.com", "", errs.InvalidFormat},
		"direction override": {"al\u202eice@example.com", "", errs.InvalidFormat},
		"IP address":         {"alice@[127.0.0.1]", "", errs.InvalidFormat},
		"dots in a row":      {"a..b@example.com", "", errs.InvalidFormat},
		"dot at the end":     {"alice.@example.com", "", errs.InvalidFormat},
		"empty domain label": {"alice@example..com", "", errs.InvalidFormat},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := checkEmail(test.given)
			expectRule(t, err, test.code, "email")
			if got != test.want {
				t.Errorf("email = %q, want %q", got, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "ice") {
				t.Errorf("the error quotes the address: %v", err)
			}
		})
	}
}

func TestDisplayNameRule(t *testing.T) {
	t.Parallel()
	const family = "👩\u200d👩\u200d👧\u200d👦"
	tests := map[string]struct {
		given, want string
		code        errs.Code
	}{
		"plain":                  {"Alice Smith", "Alice Smith", ""},
		"empty is the username":  {"", "alice", ""},
		"blank is the username":  {" \t\u3000\u00a0\n", "alice", ""},
		"trimmed":                {"\u3000 Alice  Smith\n", "Alice  Smith", ""},
		"composed":               {"Jose\u0301", "José", ""},
		"emoji":                  {family, family, ""},
		"right to left":          {"\u200fעליזה", "\u200fעליזה", ""},
		"CJK":                    {"愛麗絲", "愛麗絲", ""},
		"one character":          {"A", "A", ""},
		"longest":                {strings.Repeat("愛", 64), strings.Repeat("愛", 64), ""},
		"longest when composed":  {strings.Repeat("e\u0301", 64), strings.Repeat("é", 64), ""},
		"longest when trimmed":   {strings.Repeat(" ", 99) + strings.Repeat("a", 64), strings.Repeat("a", 64), ""},
		"too long":               {strings.Repeat("a", 65), "", errs.TooLong},
		"NUL":                    {"Al\x00ice", "", errs.InvalidCharacters},
		"tab":                    {"Al\tice", "", errs.InvalidCharacters},
		"newline":                {"Al\nice", "", errs.InvalidCharacters},
		"delete":                 {"Al\x7fice", "", errs.InvalidCharacters},
		"C1 control":             {"Al\u0085ice", "", errs.InvalidCharacters},
		"line separator":         {"Al\u2028ice", "", errs.InvalidCharacters},
		"paragraph separator":    {"Al\u2029ice", "", errs.InvalidCharacters},
		"control at the outside": {"\x1bAlice", "", errs.InvalidCharacters},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := checkDisplayName(test.given, "alice")
			expectRule(t, err, test.code, "display_name")
			if got != test.want {
				t.Errorf("display name = %q, want %q", got, test.want)
			}
		})
	}
}

func TestPasswordRule(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		given string
		code  errs.Code
	}{
		"shortest":           {"12345678", ""},
		"shortest, emoji":    {strings.Repeat("🔑", 8), ""},
		"longest":            {strings.Repeat("🔑", 128), ""},
		"spaces count":       {"        ", ""},
		"empty":              {"", errs.Required},
		"too short":          {"1234567", errs.TooShort},
		"too short, emoji":   {strings.Repeat("🔑", 7), errs.TooShort},
		"too long":           {strings.Repeat("a", 129), errs.TooLong},
		"control characters": {"\x00\x01\x02\x03\x04\x05\x06\x07", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expectRule(t, checkPassword(test.given), test.code, "password")
		})
	}
}

func TestLoginsAreFoldedAsTheyWereStored(t *testing.T) {
	t.Parallel()
	for _, given := range []string{"alice", "ALICE", "Al.i_C-e9"} {
		stored, err := checkUsername(given)
		if err != nil {
			t.Fatal(err)
		}
		if folded := foldUsername(stored); folded != stored {
			t.Errorf("username %q folds to %q and then to %q", given, stored, folded)
		}
	}
	for _, given := range []string{
		"Alice@Example.COM", "Jose\u0301@Exämple.com", "\u212aelvin@example.com", "\u0130@example.com",
	} {
		stored, err := checkEmail(given)
		if err != nil {
			t.Fatal(err)
		}
		if folded := foldEmail(stored); folded != stored {
			t.Errorf("address %q folds to %q and then to %q", given, stored, folded)
		}
	}
}
