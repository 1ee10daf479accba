package service

import (
	"fmt"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"chatapp.dev/internal/platform/errs"
)

// The bounds of what an account is made of. All but the last are in characters (code points).
const (
	minUsername    = 3
	maxUsername    = 32
	maxDisplayName = 64
	minPassword    = 8
	maxPassword    = 128
	maxEmailBytes  = 254 // RFC 5321 counts bytes.
)

// usernameCharacters are those of a folded username.
const usernameCharacters = "abcdefghijklmnopqrstuvwxyz0123456789._-"

// The fields of a request that an error can be about, as the API's contract spells them.
const (
	fieldUsername    = "username"
	fieldEmail       = "email"
	fieldDisplayName = "display_name"
	fieldPassword    = "password"
)

// broken makes the error about a field that breaks a rule.
func broken(code errs.Code, field, format string, args ...any) error {
	return errs.Field(errs.Invalid, code, field, fmt.Sprintf(format, args...))
}

// foldUsername returns the one form in which a username is stored and looked up. Only ASCII letters are folded: any
// other character that has a lower-case form in ASCII, such as the Kelvin sign, is not allowed in a username in the
// first place.
func foldUsername(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// checkUsername returns the folded username, or the rule that it breaks.
func checkUsername(s string) (string, error) {
	username := foldUsername(s)
	if username == "" {
		return "", broken(errs.Required, fieldUsername, "a username is required")
	}
	if strings.ContainsFunc(username, func(r rune) bool { return !strings.ContainsRune(usernameCharacters, r) }) {
		return "", broken(errs.InvalidCharacters, fieldUsername,
			"a username may contain only the letters a to z, digits, full stops, underscores and hyphens")
	}
	if len(username) < minUsername {
		return "", broken(errs.TooShort, fieldUsername, "a username must have at least %d characters", minUsername)
	}
	if len(username) > maxUsername {
		return "", broken(errs.TooLong, fieldUsername, "a username must have at most %d characters", maxUsername)
	}
	return username, nil
}

// foldEmail returns the one form in which an e-mail address is stored and looked up. Mail goes to this form, too: to
// fold two people's addresses together can therefore not divert mail.
func foldEmail(s string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(s)))
}

// checkEmail returns the folded address, or the rule that it breaks. It takes what can be written as local@domain
// without quotes or comments, and asks nobody whether it exists. No error says what the address was.
func checkEmail(s string) (string, error) {
	if s == "" {
		return "", broken(errs.Required, fieldEmail, "an e-mail address is required")
	}
	email := foldEmail(s)
	if len(email) > maxEmailBytes {
		return "", broken(errs.TooLong, fieldEmail, "an e-mail address must have at most %d bytes", maxEmailBytes)
	}
	// The parser takes whole header lines; only an address that it gives back as it was is a plain one. It also takes
	// invisible characters and domains that are IP addresses.
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Name != "" || parsed.Address != email ||
		strings.HasSuffix(email, "]") || strings.ContainsFunc(email, unaddressable) {
		return "", broken(errs.InvalidFormat, fieldEmail, "an e-mail address must look like name@example.com")
	}
	return email, nil
}

// unaddressable says whether a character has no place in an e-mail address.
func unaddressable(r rune) bool { return unicode.IsSpace(r) || unicode.In(r, unicode.C) }

// checkDisplayName returns the display name as it is stored, or the rule that it breaks. It is the username when none
// is given.
func checkDisplayName(s, username string) (string, error) {
	name := strings.TrimSpace(norm.NFC.String(s))
	if name == "" {
		return username, nil
	}
	if strings.ContainsFunc(name, breaksLine) {
		return "", broken(errs.InvalidCharacters, fieldDisplayName,
			"a display name must not contain control characters or line breaks")
	}
	if utf8.RuneCountInString(name) > maxDisplayName {
		return "", broken(errs.TooLong, fieldDisplayName, "a display name must have at most %d characters", maxDisplayName)
	}
	return name, nil
}

// breaksLine says whether a character controls a device or ends a line, instead of being written.
func breaksLine(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) }

// checkPassword says which rule a new password breaks.
func checkPassword(s string) error {
	switch n := utf8.RuneCountInString(s); {
	case n == 0:
		return broken(errs.Required, fieldPassword, "a password is required")
	case n < minPassword:
		return broken(errs.TooShort, fieldPassword, "a password must have at least %d characters", minPassword)
	case n > maxPassword:
		return broken(errs.TooLong, fieldPassword, "a password must have at most %d characters", maxPassword)
	}
	return nil
}
