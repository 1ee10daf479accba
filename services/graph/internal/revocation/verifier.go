package revocation

import (
	"context"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
)

// Verifier checks access tokens as an identity.Verifier does, and refuses those of revoked sessions besides. It is safe
// for concurrent use.
type Verifier struct {
	signatures *identity.Verifier
	list       *List
}

// NewVerifier returns a Verifier of tokens that another one accepts and whose sessions are not on the list.
func NewVerifier(signatures *identity.Verifier, list *List) *Verifier {
	return &Verifier{signatures: signatures, list: list}
}

// Verify returns whom a token stands for. The error is errs.Unauthenticated when the token is not or no longer good, and
// errs.Unavailable when that cannot be found out now.
func (v *Verifier) Verify(ctx context.Context, token string) (identity.Identity, error) {
	who, err := v.signatures.Verify(ctx, token)
	if err != nil {
		return identity.Identity{}, err
	}
	if v.list.Revoked(who.SessionID) {
		return identity.Identity{}, ErrRevoked
	}
	return who, nil
}

// Standing says whether an identity that Verify returned earlier may go on: its session has not been revoked since.
func (v *Verifier) Standing(who identity.Identity) bool { return !v.list.Revoked(who.SessionID) }

// ErrRevoked is how a caller of a session that was signed out is refused.
var ErrRevoked = errs.New(errs.Unauthenticated, "the session was signed out; sign in again")
