package model

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"chatapp.dev/internal/platform/errs"
)

func TestInts(t *testing.T) {
	for _, test := range []struct {
		in   any
		want int
		ok   bool
	}{
		{int64(7), 7, true},
		{json.Number("-2147483648"), -2147483648, true},
		{json.Number("2147483647"), 2147483647, true},
		{json.Number("2147483648"), 0, false},
		{int64(1 << 40), 0, false},
		{json.Number("1.0"), 0, false},
		{json.Number("1e3"), 0, false},
		{json.Number("99999999999999999999"), 0, false},
		{"7", 0, false},
		{7.0, 0, false},
		{true, 0, false},
		{nil, 0, false},
	} {
		got, err := UnmarshalInt(test.in)
		if (err == nil) != test.ok || (test.ok && got != test.want) {
			t.Errorf("%T %v: %d, %v", test.in, test.in, got, err)
		}
		if err != nil && errs.KindOf(err) != errs.Invalid {
			t.Errorf("%v: the error is %v", test.in, errs.KindOf(err))
		}
	}
}

func TestIDs(t *testing.T) {
	for in, want := range map[any]string{"abc": "abc", int64(7): "7", json.Number("7"): "7"} {
		if got, err := UnmarshalID(in); err != nil || got != want {
			t.Errorf("%v: %q, %v", in, got, err)
		}
	}
	for _, in := range []any{nil, true, 1.5, json.Number("1.5"), []any{}} {
		if got, err := UnmarshalID(in); err == nil {
			t.Errorf("%v is taken for %q", in, got)
		}
	}
}

func TestLogCursors(t *testing.T) {
	if got, err := UnmarshalCursor("abc"); err != nil || got != "abc" {
		t.Errorf("%q, %v", got, err)
	}
	for _, in := range []any{"", 7, nil} {
		if _, err := UnmarshalCursor(in); errs.KindOf(err) != errs.CursorInvalid {
			t.Errorf("%v: %v", in, err)
		}
	}
}

func TestDateTimes(t *testing.T) {
	zone := time.FixedZone("", 2*60*60)
	for want, in := range map[string]time.Time{
		`"2025-06-01T09:30:00.123456Z"`: time.Date(2025, 6, 1, 11, 30, 0, 123456789, zone),
		`"2025-06-01T09:30:00.000000Z"`: time.Date(2025, 6, 1, 9, 30, 0, 0, time.UTC),
	} {
		var out strings.Builder
		MarshalDateTime(in).MarshalGQL(&out)
		if out.String() != want {
			t.Errorf("%v is written as %s, want %s", in, out.String(), want)
		}
		var text string
		if err := json.Unmarshal([]byte(want), &text); err != nil {
			t.Fatal(err)
		}
		if got, err := UnmarshalDateTime(text); err != nil || !got.Equal(in.Truncate(time.Microsecond)) {
			t.Errorf("%s is read as %v, %v", want, got, err)
		}
	}
	for _, in := range []any{"", "today", 7, nil} {
		if _, err := UnmarshalDateTime(in); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%v: %v", in, err)
		}
	}
}
