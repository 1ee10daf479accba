package mysql

import (
	"errors"
	"fmt"
	"strings"
)

// splitStatements returns the statements of a script, without the comments and white space around them. It knows
// strings, quoted names and comments, in which a semicolon ends nothing; it does not know DELIMITER, which is the
// mysql program's.
func splitStatements(script string) ([]string, error) {
	var statements []string
	start := -1 // Where the statement begins that i is in, or -1 before it.
	end := 0    // Where its text ended so far.
	finish := func() {
		if start >= 0 {
			statements = append(statements, script[start:end])
		}
		start = -1
	}
	for i := 0; i < len(script); {
		switch c := script[i]; {
		case c == ';':
			finish()
			i++
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '#' || isDashComment(script[i:]):
			i += lineLength(script[i:])
		case strings.HasPrefix(script[i:], "/*"):
			length := strings.Index(script[i:], "*/")
			if length < 0 {
				return nil, errors.New("a comment is not closed")
			}
			i += length + len("*/")
		default:
			length := 1
			if c == '\'' || c == '"' || c == '`' {
				if length = quotedLength(script[i:]); length < 0 {
					return nil, fmt.Errorf("a %c is not closed", c)
				}
			}
			if start < 0 {
				start = i
			}
			i += length
			end = i
		}
	}
	finish()
	return statements, nil
}

// isDashComment says whether s begins a comment of two dashes, which white space or the end must follow.
func isDashComment(s string) bool {
	rest, ok := strings.CutPrefix(s, "--")
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\n' || rest[0] == '\r')
}

// lineLength returns the length of the first line of s, its end included.
func lineLength(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i + 1
	}
	return len(s)
}

// quotedLength returns the length of the quoted text that s begins with, or -1 when its end is missing. A quote inside
// is doubled, which reads as two quoted texts in a row, or escaped.
func quotedLength(s string) int {
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return i + 1
		case s[i] == '\\' && quote != '`':
			i++
		}
	}
	return -1
}
