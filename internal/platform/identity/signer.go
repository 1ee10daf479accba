package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"chatapp.dev/internal/platform/ids"
)

const (
	issuer   = "chatapp"
	audience = "chatapp"
	// algorithm is the one algorithm for which a token is made or accepted.
	algorithm = jose.EdDSA
)

// claims are what a token says. Subject is the user's id.
type claims struct {
	jwt.Claims
	SessionID string `json:"sid"`
}

// Signer makes access tokens.
type Signer struct {
	signer jose.Signer
	jwks   []byte
}

// NewSigner returns a Signer that signs with the first key and publishes all of them, so that tokens signed before a
// rotation stay good until they expire.
//
// To rotate, publish the new key in a later place first, wait for the verifiers to read it, and move it to the first
// place then. A verifier that meets a key it does not know reads the set again, so a hasty rotation costs time and not
// sessions, as long as every replica that it may ask has the key.
func NewSigner(keys []ed25519.PrivateKey) (*Signer, error) {
	if len(keys) == 0 {
		return nil, errors.New("signer: no key to sign with")
	}
	var set jose.JSONWebKeySet
	for _, key := range keys {
		public := key.Public().(ed25519.PublicKey)
		kid, err := keyID(public)
		if err != nil {
			return nil, fmt.Errorf("signer: %w", err)
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: public, KeyID: kid, Algorithm: string(algorithm), Use: "sig"})
	}
	jwks, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("signer: encode key set: %w", err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: keys[0], KeyID: set.Keys[0].KeyID}},
		(&jose.SignerOptions{}).WithType("JWT"),
	)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return &Signer{signer: signer, jwks: jwks}, nil
}

// Sign returns a token for a user's session and the time at which it expires, a whole second.
func (s *Signer) Sign(userID, sessionID ids.ID, ttl time.Duration) (token string, expires time.Time, err error) {
	now := time.Now().Truncate(time.Second)
	expires = now.Add(ttl).Truncate(time.Second)
	token, err = jwt.Signed(s.signer).Claims(claims{
		Claims: jwt.Claims{
			Issuer:    issuer,
			Audience:  jwt.Audience{audience},
			Subject:   userID.String(),
			IssuedAt:  jwt.NewNumericDate(now),
			NotBefore: jwt.NewNumericDate(now),
			Expiry:    jwt.NewNumericDate(expires),
		},
		SessionID: sessionID.String(),
	}).Serialize()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign access token: %w", err)
	}
	return token, expires, nil
}

// JWKS returns the key set that verifies the tokens, as JSON.
func (s *Signer) JWKS() []byte { return bytes.Clone(s.jwks) }

// Fetch is a KeyFetcher for a Verifier in the signer's own process.
func (s *Signer) Fetch(context.Context) ([]byte, error) { return s.JWKS(), nil }
