package service

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"chatapp.dev/internal/platform/errs"
)

// maxBody is the most characters (code points) that a message holds.
const maxBody = 4_000

// normalizeBody brings a message's text to the form in which it is stored and compared: CRLF becomes LF, outer white
// space goes, and the text is in NFC. It refuses, naming the rule, what is then empty, longer than maxBody, or holds a
// control character (category Cc) other than tab and newline; marks of direction and joiners are no control characters
// in that sense.
func normalizeBody(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", errs.Field(errs.Invalid, errs.InvalidCharacters, "body", "body must be valid UTF-8")
	}
	text = strings.TrimFunc(strings.ReplaceAll(text, "\r\n", "\n"), unicode.IsSpace)
	if text == "" {
		return "", errs.Field(errs.Invalid, errs.Required, "body", "body must not be blank")
	}
	for _, r := range text {
		if unicode.IsControl(r) && r != '\t' && r != '\n' {
			return "", errs.Field(errs.Invalid, errs.InvalidCharacters, "body",
				"body must not contain control characters other than tab and newline")
		}
	}
	text = norm.NFC.String(text)
	if utf8.RuneCountInString(text) > maxBody {
		return "", errs.Field(errs.Invalid, errs.TooLong, "body", "body must have at most 4,000 characters")
	}
	return text, nil
}
