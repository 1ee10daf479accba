package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	lru "github.com/hashicorp/golang-lru/v2"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

const (
	// leeway is how far the clocks of a signer and a verifier may differ.
	leeway = 5 * time.Second
	// cachedTokens bounds the cache: about half a kilobyte each.
	cachedTokens = 1 << 16
	// maxTokenLen is far above what a Signer makes, and keeps absurd input away from the decoder.
	maxTokenLen = 4096
)

// Verifier checks access tokens. It is safe for concurrent use.
type Verifier struct {
	keys *keyring
	// cache spares a token's every use but the first the decoding and the signature. It is keyed by the token's digest.
	cache *lru.Cache[[sha256.Size]byte, proof]
}

// proof is a token that was verified, and the id of the key that did it.
type proof struct {
	identity Identity
	kid      string
}

// NewVerifier returns a Verifier that trusts the keys that fetch reads. They are read at the first use.
func NewVerifier(fetch KeyFetcher) *Verifier {
	cache, err := lru.New[[sha256.Size]byte, proof](cachedTokens)
	if err != nil {
		panic(err) // Only for a size that is not positive.
	}
	return &Verifier{keys: newKeyring(fetch), cache: cache}
}

// Verify returns whom a token stands for. The error is errs.Unauthenticated when the token is not or no longer good, and
// errs.Unavailable when that cannot be found out now.
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	if len(token) > maxTokenLen {
		return Identity{}, refuse(errors.New("the token is too long"))
	}
	// The decoder passes over line breaks. A token that holds one cannot be passed on in a header, and one token must not
	// fill the cache in a thousand spellings.
	if strings.ContainsAny(token, "\r\n") {
		return Identity{}, refuse(errors.New("the token has a line break in it"))
	}
	digest := sha256.Sum256([]byte(token))
	if known, ok := v.cache.Get(digest); ok {
		if time.Now().Add(-leeway).After(known.identity.ExpiresAt) {
			v.cache.Remove(digest)
			return Identity{}, refuse(jwt.ErrExpired)
		}
		// A key that was withdrawn takes the tokens that it signed along.
		if _, err := v.keys.key(ctx, known.kid); err != nil {
			return Identity{}, refuse(err)
		}
		return known.identity, nil
	}
	verified, err := v.verify(ctx, token)
	if err != nil {
		return Identity{}, refuse(err)
	}
	v.cache.Add(digest, verified)
	return verified.identity, nil
}

// verify does the whole check of a token.
func (v *Verifier) verify(ctx context.Context, token string) (proof, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{algorithm})
	if err != nil {
		return proof{}, fmt.Errorf("parse token: %w", err)
	}
	// What the token claims is looked at before its signature, so that a token that would be refused anyhow, such as one
	// that expired long after its key was withdrawn, makes nobody ask for keys.
	var said claims
	if err := parsed.UnsafeClaimsWithoutVerification(&said); err != nil {
		return proof{}, fmt.Errorf("parse claims: %w", err)
	}
	identity, err := said.identity(token)
	if err != nil {
		return proof{}, err
	}
	kid := parsed.Headers[0].KeyID
	key, err := v.keys.key(ctx, kid)
	if err != nil {
		return proof{}, err
	}
	if err := parsed.Claims(key); err != nil {
		return proof{}, fmt.Errorf("verify signature: %w", err)
	}
	return proof{identity: identity, kid: kid}, nil
}

// identity checks the claims of a token and returns whom they name.
func (c claims) identity(token string) (Identity, error) {
	if c.Expiry == nil {
		return Identity{}, errors.New("the token never expires")
	}
	expected := jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{audience}}
	if err := c.ValidateWithLeeway(expected, leeway); err != nil {
		return Identity{}, err
	}
	userID, err := ids.Parse(c.Subject)
	if err != nil {
		return Identity{}, fmt.Errorf("claim sub: %w", err)
	}
	sessionID, err := ids.Parse(c.SessionID)
	if err != nil {
		return Identity{}, fmt.Errorf("claim sid: %w", err)
	}
	return Identity{UserID: userID, SessionID: sessionID, ExpiresAt: c.Expiry.Time(), Token: token}, nil
}

// refuse makes the error that a caller sees. It tells a client no more than whether a fresh token would help.
func refuse(err error) error {
	switch {
	case errs.KindOf(err) == errs.Unavailable:
		return err
	case errors.Is(err, jwt.ErrExpired):
		return errs.Wrap(errs.Unauthenticated, err, "the access token has expired")
	default:
		return errs.Wrap(errs.Unauthenticated, err, "the access token is not valid")
	}
}
