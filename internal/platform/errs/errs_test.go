package errs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestKindOf(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want Kind
	}{
		{"one of ours", New(NotFound, "no such user"), NotFound},
		{"ours, wrapped by fmt", fmt.Errorf("load: %w", New(Conflict, "taken")), Conflict},
		{"the outermost of two", Wrap(Forbidden, New(NotFound, "no such user"), "not yours"), Forbidden},
		{"ours around a context's end", Wrap(Invalid, context.Canceled, "bad"), Invalid},
		{"deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), Unavailable},
		{"cancellation", context.Canceled, Unavailable},
		{"unknown", io.EOF, Internal},
		{"zero", &Error{}, Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := KindOf(tt.err); got != tt.want {
				t.Errorf("KindOf(%v) = %v, want %v", tt.err, got, tt.want)
			}
		})
	}
}

func TestKindNamesAreDistinct(t *testing.T) {
	seen := map[string]Kind{}
	for _, k := range Kinds() {
		name := k.String()
		if name == "" {
			t.Errorf("kind %d has no name", int(k))
		}
		if other, ok := seen[name]; ok {
			t.Errorf("kinds %d and %d are both named %s", int(other), int(k), name)
		}
		seen[name] = k
	}
	if len(seen) != 10 {
		t.Errorf("there are %d kinds, want 10", len(seen))
	}
	for _, k := range []Kind{-1, kindCount} {
		if k.String() != "INTERNAL" {
			t.Errorf("a kind outside the set is named %s", k)
		}
	}
}

func TestErrorKeepsTheCauseOutOfTheMessage(t *testing.T) {
	err := Wrap(Unavailable, io.ErrUnexpectedEOF, "try again")
	if err.Message != "try again" {
		t.Errorf("Message = %q", err.Message)
	}
	if got, want := err.Error(), "try again: unexpected EOF"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the cause is not in the chain")
	}
	if got := New(Internal, "oh").Error(); got != "oh" {
		t.Errorf("Error() without a cause = %q", got)
	}
}

func TestAs(t *testing.T) {
	want := Field(Invalid, TooLong, "body", "body is too long")
	got, ok := As(fmt.Errorf("send: %w", want))
	if !ok || got != want {
		t.Errorf("As = %v, %v; want %v", got, ok, want)
	}
	if got, ok := As(io.EOF); ok || got != nil {
		t.Errorf("As(io.EOF) = %v, %v", got, ok)
	}
	if _, ok := As(nil); ok {
		t.Error("As(nil) found an error")
	}
}
