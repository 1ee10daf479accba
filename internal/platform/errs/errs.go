// Package errs has the closed set of ways in which a ChatApp operation can fail.
//
// An error made here crosses a gRPC call (package rpc translates it, and nothing else does) with its kind, code, field
// and message unchanged. Its cause never leaves the process: it is for the log of the service where it happened.
// Message is therefore written for a client's eyes, and must hold nothing that the caller may not know.
//
// An error that was not made here is Internal, and a client learns no more than that.
package errs

import (
	"context"
	"errors"
)

// Kind says what a caller can do about a failure. The set is closed; the zero Kind is Internal.
type Kind int

const (
	// Internal is a fault of ours; retrying may or may not help.
	Internal Kind = iota
	// Invalid is a request that can never succeed as it is.
	Invalid
	// Unauthenticated means that no valid token came with the call.
	Unauthenticated
	// Forbidden means that the caller is known and may not do this.
	Forbidden
	// NotFound means that the thing does not exist, or that the caller may not know that it does.
	NotFound
	// Conflict means that what is stored already contradicts the request.
	Conflict
	// RateLimited means that the caller asks too often and may ask again later.
	RateLimited
	// Unavailable is a passing failure: the same request may succeed when repeated. It may also have succeeded already.
	Unavailable
	// CursorExpired means that the events after a cursor are gone: the caller must fetch its lists again.
	CursorExpired
	// CursorInvalid means that a cursor is not one that was given to this caller.
	CursorInvalid

	kindCount
)

var kindNames = [kindCount]string{
	Internal:        "INTERNAL",
	Invalid:         "INVALID",
	Unauthenticated: "UNAUTHENTICATED",
	Forbidden:       "FORBIDDEN",
	NotFound:        "NOT_FOUND",
	Conflict:        "CONFLICT",
	RateLimited:     "RATE_LIMITED",
	Unavailable:     "UNAVAILABLE",
	CursorExpired:   "CURSOR_EXPIRED",
	CursorInvalid:   "CURSOR_INVALID",
}

// Kinds returns every Kind, for tables that must cover them all.
func Kinds() []Kind {
	kinds := make([]Kind, 0, kindCount)
	for k := range kindCount {
		kinds = append(kinds, k)
	}
	return kinds
}

// String returns the kind's name, which is also its name on the wire.
func (k Kind) String() string {
	if k < 0 || k >= kindCount {
		return Internal.String()
	}
	return kindNames[k]
}

// Code names the rule that a field of a request broke.
type Code string

// The rules. Their text is what clients of the public API see.
const (
	Required           Code = "REQUIRED"
	TooShort           Code = "TOO_SHORT"
	TooLong            Code = "TOO_LONG"
	InvalidFormat      Code = "INVALID_FORMAT"
	InvalidCharacters  Code = "INVALID_CHARACTERS"
	OutOfRange         Code = "OUT_OF_RANGE"
	Taken              Code = "TAKEN"
	UnknownReference   Code = "NOT_FOUND"
	ClientIDReused     Code = "CONFLICT"
	InvalidCredentials Code = "INVALID_CREDENTIALS"
)

// Error is a failure that a caller can act upon.
type Error struct {
	Kind Kind
	// Code and Field tell which rule was broken by which field of the request; both are empty when the failure is not
	// one field's.
	Code  Code
	Field string
	// Message is one sentence for a client.
	Message string

	cause error
}

// New returns an error that has no deeper cause.
func New(kind Kind, msg string) *Error {
	return &Error{Kind: kind, Message: msg}
}

// Field returns an error about one field of a request.
func Field(kind Kind, code Code, field, msg string) *Error {
	return &Error{Kind: kind, Code: code, Field: field, Message: msg}
}

// Wrap returns an error of a kind with a message for the client, keeping err for the log.
func Wrap(kind Kind, err error, msg string) *Error {
	return &Error{Kind: kind, Message: msg, cause: err}
}

// Error returns the message and the cause. It is for logs; a client gets Message alone.
func (e *Error) Error() string {
	if e.cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// As finds the outermost Error in err's chain.
func As(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// KindOf returns the kind of the outermost Error in err's chain. A context that ended is Unavailable, since nothing is
// known about the outcome; any other error is Internal.
func KindOf(err error) Kind {
	if e, ok := As(err); ok {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable
	}
	return Internal
}
