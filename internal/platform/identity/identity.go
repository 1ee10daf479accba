// Package identity says who makes a call, and proves it.
//
// A user's proof is an access token: a JWT signed with Ed25519 (alg EdDSA) whose header names the key by its RFC 7638
// thumbprint. The service users holds a Signer; every service, users included, holds a Verifier, trusts no other
// service to have checked, and passes the caller's token on.
//
// Guaranteed: a token that a Verifier accepts was signed by a key that was published when the Verifier last read the
// key set (about five minutes ago at most, while tokens come and the set can be read), names a user and a session, and
// has not expired, give or take five seconds for clocks that differ. A key that cannot be looked up is a passing failure
// (errs.Unavailable) and never makes a client believe that it is signed out.
//
// Not guaranteed: that the session still stands. A Verifier goes by the signature alone, so that a token outlives its
// session's end by up to its own remaining life, unless something else looks: graph does, which faces the public; the
// services behind it do not.
package identity

import (
	"context"
	"log/slog"
	"time"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

// Identity is the verified caller of an operation.
type Identity struct {
	UserID    ids.ID
	SessionID ids.ID
	// ExpiresAt is when Token stops being accepted.
	ExpiresAt time.Time
	// Token is the access token itself, for passing it on to another service.
	Token string
}

// String names the user and the session, and leaves out the token, which must reach no log.
func (id Identity) String() string {
	return "user " + id.UserID.String() + ", session " + id.SessionID.String()
}

// LogValue implements slog.LogValuer, without the token.
func (id Identity) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("user", id.UserID), slog.Any("session", id.SessionID))
}

type contextKey struct{}

// With returns a context whose caller is id.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// From returns the caller of the operation that ctx belongs to, if there is one.
func From(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(contextKey{}).(Identity)
	return id, ok
}

// Must returns the caller, or errs.Unauthenticated when nobody is signed in.
func Must(ctx context.Context) (Identity, error) {
	id, ok := From(ctx)
	if !ok {
		return Identity{}, errs.New(errs.Unauthenticated, "sign in first")
	}
	return id, nil
}
