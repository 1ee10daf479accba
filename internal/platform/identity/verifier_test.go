package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/ids"
)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newTestSigner(t *testing.T, keys ...ed25519.PrivateKey) *Signer {
	t.Helper()
	signer, err := NewSigner(keys)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func sign(t *testing.T, s *Signer, ttl time.Duration) string {
	t.Helper()
	token, _, err := s.Sign(ids.New(), ids.New(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// wantKind fails unless a verification had the outcome.
func wantKind(t *testing.T, err error, want errs.Kind) {
	t.Helper()
	if err == nil || errs.KindOf(err) != want {
		t.Fatalf("Verify gave %v, want %v", err, want)
	}
}

// publisher is a key set that a test can change, break and count the reads of.
type publisher struct {
	reads atomic.Int32
	delay time.Duration

	mu     sync.Mutex
	signer *Signer // What is published; nil for a publisher that is down.
}

func (p *publisher) publish(s *Signer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signer = s
}

func (p *publisher) fetch(ctx context.Context) ([]byte, error) {
	p.reads.Add(1)
	time.Sleep(p.delay)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signer == nil {
		return nil, errors.New("the publisher is down")
	}
	return p.signer.Fetch(ctx)
}

func TestSignThenVerify(t *testing.T) {
	signer := newTestSigner(t, newKey(t))
	verifier := NewVerifier(signer.Fetch)
	user, session := ids.New(), ids.New()
	token, expires, err := signer.Sign(user, session, 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{UserID: user, SessionID: session, ExpiresAt: expires, Token: token}
	for _, use := range []string{"first", "cached"} {
		got, err := verifier.Verify(t.Context(), token)
		if err != nil {
			t.Fatalf("%s use: %v", use, err)
		}
		if !got.ExpiresAt.Equal(want.ExpiresAt) {
			t.Errorf("%s use: expires at %v, want %v", use, got.ExpiresAt, want.ExpiresAt)
		}
		got.ExpiresAt = want.ExpiresAt
		if got != want {
			t.Errorf("%s use: got %v, want %v", use, got, want)
		}
	}
}

// TestTokenOnTheWire holds the token to what other parties may rely on.
func TestTokenOnTheWire(t *testing.T) {
	signer := newTestSigner(t, newKey(t))
	user, session := ids.New(), ids.New()
	token, expires, err := signer.Sign(user, session, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(signer.JWKS(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("JWKS %s: %v", signer.JWKS(), err)
	}
	published := set.Keys[0]
	for name, want := range map[string]string{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"} {
		if published[name] != want {
			t.Errorf("published %s = %q, want %q", name, published[name], want)
		}
	}
	if _, ok := published["d"]; ok {
		t.Fatal("the private key is published")
	}

	header, payload := decodeToken(t, token)
	for name, want := range map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": published["kid"]} {
		if header[name] != want {
			t.Errorf("header %s = %v, want %v", name, header[name], want)
		}
	}
	for name, want := range map[string]any{
		"iss": "chatapp", "aud": "chatapp", "sub": user.String(), "sid": session.String(),
		"exp": float64(expires.Unix()), "iat": float64(expires.Unix() - 60), "nbf": float64(expires.Unix() - 60),
	} {
		if payload[name] != want {
			t.Errorf("claim %s = %v, want %v", name, payload[name], want)
		}
	}
	if len(payload) != 7 {
		t.Errorf("claims %v, want 7", payload)
	}
}

// TestKeyIDIsTheThumbprint uses the example of RFC 8037, appendix A.3.
func TestKeyIDIsTheThumbprint(t *testing.T) {
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	got, err := keyID(ed25519.PublicKey(x))
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; err != nil || got != want {
		t.Errorf("keyID = %q, %v; want %q", got, err, want)
	}
}

func decodeToken(t *testing.T, token string) (header, payload map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts", len(parts))
	}
	for i, dest := range []*map[string]any{&header, &payload} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, dest); err != nil {
			t.Fatal(err)
		}
	}
	return header, payload
}

// TestVerifyRefuses forges tokens with one thing wrong each.
func TestVerifyRefuses(t *testing.T) {
	key := newKey(t)
	signer := newTestSigner(t, key)
	public := key.Public().(ed25519.PublicKey)
	kid, err := keyID(public)
	if err != nil {
		t.Fatal(err)
	}

	// The claims of a good token, for a case to change.
	good := func() map[string]any {
		_, payload := decodeToken(t, sign(t, signer, time.Minute))
		return payload
	}
	with := func(name string, value any) map[string]any {
		payload := good()
		payload[name] = value
		return payload
	}
	without := func(name string) map[string]any {
		payload := good()
		delete(payload, name)
		return payload
	}
	forge := func(algorithm jose.SignatureAlgorithm, key any, kid string, payload map[string]any) string {
		t.Helper()
		signer, err := jose.NewSigner(jose.SigningKey{
			Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(raw)
		if err != nil {
			t.Fatal(err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	encode := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	unsigned := encode(map[string]string{"alg": "none", "kid": kid}) + "." + encode(good()) + "."
	parts := strings.Split(forge(jose.EdDSA, key, kid, good()), ".")
	now := time.Now()

	tests := []struct {
		name  string
		token string
	}{
		{"empty", ""},
		{"garbage", "garbage"},
		{"two parts", parts[0] + "." + parts[1]},
		{"too long", strings.Repeat("a", maxTokenLen+1)},
		{"a line break inside", parts[0] + "\n." + parts[1] + "." + parts[2]},
		{"alg none", unsigned},
		{"alg none with the signature of another", unsigned + parts[2]},
		{"alg HS256 keyed with the public key", forge(jose.HS256, []byte(public), kid, good())},
		{"signed by another key", forge(jose.EdDSA, newKey(t), kid, good())},
		{"no key id", forge(jose.EdDSA, key, "", good())},
		{"unknown key id", forge(jose.EdDSA, key, "other", good())},
		{"claims of another token", parts[0] + "." + encode(with("sub", ids.New().String())) + "." + parts[2]},
		{"no signature", parts[0] + "." + parts[1] + "."},
		{"no expiry", forge(jose.EdDSA, key, kid, without("exp"))},
		{"expired", forge(jose.EdDSA, key, kid, with("exp", now.Add(-leeway-2*time.Second).Unix()))},
		{"expiry that is no number", forge(jose.EdDSA, key, kid, with("exp", "tomorrow"))},
		{"not valid yet", forge(jose.EdDSA, key, kid, with("nbf", now.Add(time.Hour).Unix()))},
		{"issued in the future", forge(jose.EdDSA, key, kid, with("iat", now.Add(time.Hour).Unix()))},
		{"no issuer", forge(jose.EdDSA, key, kid, without("iss"))},
		{"other issuer", forge(jose.EdDSA, key, kid, with("iss", "chatapp2"))},
		{"no audience", forge(jose.EdDSA, key, kid, without("aud"))},
		{"other audience", forge(jose.EdDSA, key, kid, with("aud", "billing"))},
		{"no user", forge(jose.EdDSA, key, kid, without("sub"))},
		{"a user that is no id", forge(jose.EdDSA, key, kid, with("sub", "alice"))},
		{"no session", forge(jose.EdDSA, key, kid, without("sid"))},
		{"a session that is no id", forge(jose.EdDSA, key, kid, with("sid", "1"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // A key that is asked for twice takes a second.
			verifier := NewVerifier(signer.Fetch)
			for range 2 { // The second time it must not be found in the cache.
				id, err := verifier.Verify(t.Context(), tt.token)
				wantKind(t, err, errs.Unauthenticated)
				if id != (Identity{}) {
					t.Errorf("Verify named %v", id)
				}
			}
		})
	}

	t.Run("and takes the same made right", func(t *testing.T) {
		for _, payload := range []map[string]any{good(), with("aud", []string{"billing", "chatapp"})} {
			if _, err := NewVerifier(signer.Fetch).Verify(t.Context(), forge(jose.EdDSA, key, kid, payload)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestExpiryHasFiveSecondsOfLeewayAlsoWhenCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := newTestSigner(t, newKey(t))
		token := sign(t, signer, time.Minute)
		cached := NewVerifier(signer.Fetch)
		if _, err := cached.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}

		time.Sleep(time.Minute + leeway)
		for name, verifier := range map[string]*Verifier{"cached": cached, "fresh": NewVerifier(signer.Fetch)} {
			if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Errorf("%s, at the end of the leeway: %v", name, err)
			}
		}
		time.Sleep(time.Second)
		for name, verifier := range map[string]*Verifier{"cached": cached, "fresh": NewVerifier(signer.Fetch)} {
			_, err := verifier.Verify(t.Context(), token)
			if errs.KindOf(err) != errs.Unauthenticated {
				t.Errorf("%s, past the leeway: %v, want Unauthenticated", name, err)
			}
		}
		if n := cached.cache.Len(); n != 0 {
			t.Errorf("%d expired tokens stay in the cache", n)
		}
	})
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older, newer := newKey(t), newKey(t)
		before, after := newTestSigner(t, older), newTestSigner(t, newer, older)
		users := &publisher{}
		users.publish(before)
		verifier := NewVerifier(users.fetch)
		old := sign(t, before, time.Hour)
		if _, err := verifier.Verify(t.Context(), old); err != nil {
			t.Fatal(err)
		}

		// A key set was read a moment ago, and the new token is good all the same.
		time.Sleep(time.Millisecond)
		users.publish(after)
		if _, err := verifier.Verify(t.Context(), sign(t, after, time.Hour)); err != nil {
			t.Errorf("a token of the new key: %v", err)
		}
		if _, err := verifier.Verify(t.Context(), old); err != nil {
			t.Errorf("a token of the old key, which is still published: %v", err)
		}

		// The old key is withdrawn: its tokens end with the next refresh, though cached.
		users.publish(newTestSigner(t, newer))
		time.Sleep(refreshAfter)
		if _, err := verifier.Verify(t.Context(), old); err != nil {
			t.Errorf("the use that starts the refresh must not wait for it: %v", err)
		}
		synctest.Wait()
		time.Sleep(fetchInterval)
		synctest.Wait()
		_, err := verifier.Verify(t.Context(), old)
		wantKind(t, err, errs.Unauthenticated)
	})
}

func TestUnknownKeysAreFetchedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users := &publisher{delay: 100 * time.Millisecond}
		users.publish(newTestSigner(t, newKey(t)))
		verifier := NewVerifier(users.fetch)

		// Fifty strangers at once, each with a key of its own, for ten seconds.
		start := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			stranger := sign(t, newTestSigner(t, newKey(t)), time.Hour)
			wg.Go(func() {
				for time.Since(start) < 10*time.Second {
					if _, err := verifier.Verify(t.Context(), stranger); errs.KindOf(err) != errs.Unauthenticated {
						t.Errorf("Verify gave %v, want Unauthenticated", err)
					}
				}
			})
		}
		wg.Wait()
		if reads, most := int(users.reads.Load()), int(time.Since(start)/fetchInterval)+1; reads > most {
			t.Errorf("the keys were read %d times, want at most %d", reads, most)
		}
	})
}

func TestConcurrentFirstUsesFetchOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := newTestSigner(t, newKey(t))
		users := &publisher{delay: 100 * time.Millisecond}
		users.publish(signer)
		verifier := NewVerifier(users.fetch)
		var wg sync.WaitGroup
		for range 100 {
			token := sign(t, signer, time.Hour)
			wg.Go(func() {
				if _, err := verifier.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if reads := users.reads.Load(); reads != 1 {
			t.Errorf("the keys were read %d times, want once", reads)
		}
	})
}

func TestKeysThatCannotBeFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer := newTestSigner(t, newKey(t))
		users := &publisher{}
		verifier := NewVerifier(users.fetch)
		token := sign(t, signer, time.Hour)

		for range 3 { // At once, not after a wait for the next fetch.
			_, err := verifier.Verify(t.Context(), token)
			wantKind(t, err, errs.Unavailable)
		}
		if reads := users.reads.Load(); reads != 1 {
			t.Errorf("the keys were asked for %d times within a second, want once", reads)
		}

		users.publish(signer)
		time.Sleep(fetchInterval)
		if _, err := verifier.Verify(t.Context(), token); err != nil {
			t.Fatalf("the publisher is back: %v", err)
		}

		// It goes down for longer than keys stay fresh: what is known stays good, what is not is unavailable.
		users.publish(nil)
		time.Sleep(refreshAfter + time.Minute)
		for range 3 {
			if _, err := verifier.Verify(t.Context(), token); err != nil {
				t.Errorf("a known key while the publisher is down: %v", err)
			}
			time.Sleep(fetchInterval)
		}
		_, err := verifier.Verify(t.Context(), sign(t, newTestSigner(t, newKey(t)), time.Hour))
		wantKind(t, err, errs.Unavailable)
	})
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users := &publisher{delay: time.Second}
		signer := newTestSigner(t, newKey(t))
		users.publish(signer)
		verifier := NewVerifier(users.fetch)
		token := sign(t, signer, time.Hour)

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := verifier.Verify(ctx, token)
		wantKind(t, err, errs.Unavailable)

		// The fetch that it started went on for the others.
		if _, err := verifier.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
		if reads := users.reads.Load(); reads != 1 {
			t.Errorf("the keys were read %d times, want once", reads)
		}
	})
}

func TestKeySetsOfOthers(t *testing.T) {
	signer := newTestSigner(t, newKey(t))
	var ours struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(signer.JWKS(), &ours); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		jwks string
		want errs.Kind // Internal when the token must be accepted.
	}{
		{"keys that we do not know stand beside ours", `{"keys":[{"kty":"XYZ"},{"kty":"oct","k":"AAAA","kid":"a"},` +
			string(ours.Keys[0]) + `]}`, errs.Internal},
		{"no key", `{"keys":[]}`, errs.Unavailable},
		{"only keys that we do not know", `{"keys":[{"kty":"XYZ"}]}`, errs.Unavailable},
		{"not JSON", `<html>`, errs.Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			verifier := NewVerifier(func(context.Context) ([]byte, error) { return []byte(tt.jwks), nil })
			_, err := verifier.Verify(t.Context(), sign(t, signer, time.Hour))
			if tt.want == errs.Internal {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantKind(t, err, tt.want)
		})
	}
}

func TestCacheIsBounded(t *testing.T) {
	verifier := NewVerifier(newTestSigner(t, newKey(t)).Fetch)
	for i := range cachedTokens + 10 {
		verifier.cache.Add([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, proof{})
	}
	if n := verifier.cache.Len(); n != cachedTokens {
		t.Errorf("the cache holds %d tokens, want %d", n, cachedTokens)
	}
}

func TestNewSignerNeedsAKey(t *testing.T) {
	if _, err := NewSigner(nil); err == nil {
		t.Error("NewSigner took no key")
	}
}
