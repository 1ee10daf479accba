package model

import (
	"encoding/json"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"chatapp.dev/internal/platform/errs"
)

// dateTimeLayout is RFC 3339 in UTC with as many digits as the database keeps.
const dateTimeLayout = "2006-01-02T15:04:05.000000Z"

// MarshalID writes an ID.
func MarshalID(id string) graphql.Marshaler { return graphql.MarshalString(id) }

// UnmarshalID reads an ID: a string, or an integer for its decimal text.
func UnmarshalID(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return strconv.FormatInt(n, 10), nil
		}
	}
	return "", badInput("an ID is a string")
}

// MarshalInt writes an Int.
func MarshalInt(n int) graphql.Marshaler { return MarshalInt64(int64(n)) }

// UnmarshalInt reads an Int: a whole number of 32 bits.
func UnmarshalInt(v any) (int, error) {
	n, err := UnmarshalInt64(v)
	return int(n), err
}

// MarshalInt64 writes an Int that has 64 bits in Go. No count that it is used for comes near 2^31.
func MarshalInt64(n int64) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) { _, _ = io.WriteString(w, strconv.FormatInt(n, 10)) })
}

// UnmarshalInt64 is UnmarshalInt.
func UnmarshalInt64(v any) (int64, error) {
	var n int64
	switch v := v.(type) {
	case int64:
		n = v
	case json.Number:
		var err error
		if n, err = strconv.ParseInt(v.String(), 10, 64); err != nil {
			return 0, badInput("an Int is a whole number of 32 bits")
		}
	default:
		return 0, badInput("an Int is a whole number of 32 bits")
	}
	if n < math.MinInt32 || n > math.MaxInt32 {
		return 0, badInput("an Int is a whole number of 32 bits")
	}
	return n, nil
}

// MarshalCursor writes a Cursor.
func MarshalCursor(cursor string) graphql.Marshaler { return graphql.MarshalString(cursor) }

// maxCursor is the most bytes that a cursor of messages has.
const maxCursor = 512

// UnmarshalCursor reads a Cursor. The empty string is none: to a reader of the log it would mean "from now on", and
// whoever sent it would silently miss what came before.
func UnmarshalCursor(v any) (string, error) {
	cursor, ok := v.(string)
	if !ok || cursor == "" || len(cursor) > maxCursor {
		return "", errs.New(errs.CursorInvalid, "the cursor is not one that was given to you")
	}
	return cursor, nil
}

// MarshalDateTime writes a DateTime.
func MarshalDateTime(t time.Time) graphql.Marshaler {
	return graphql.MarshalString(t.UTC().Format(dateTimeLayout))
}

// UnmarshalDateTime reads a DateTime of any precision and zone.
func UnmarshalDateTime(v any) (time.Time, error) {
	text, ok := v.(string)
	if !ok {
		return time.Time{}, badInput("a DateTime is a string")
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, badInput("a DateTime is written as in RFC 3339")
	}
	return t.UTC(), nil
}

func badInput(message string) error { return errs.New(errs.Invalid, message) }
