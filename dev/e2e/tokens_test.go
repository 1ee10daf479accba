package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
)

// claimsOf reads whom a token stands for, without checking it.
func claimsOf(t *testing.T, token string) (user, session ids.ID) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token has %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Subject ids.ID `json:"sub"`
		Session ids.ID `json:"sid"`
	}
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims.Subject, claims.Session
}

// tokenFor signs another token for somebody's session, which is good for so long; it was, when that is negative. The
// service itself gives none that is good for less than a minute.
func tokenFor(t *testing.T, stack *harness.Stack, c *client.Client, ttl time.Duration) string {
	t.Helper()
	keys, err := identity.LoadKeys(filepath.Join(stack.Dir(), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, keys, c, ttl)
}

// forgedFor signs a token for somebody with a key that nobody published.
func forgedFor(t *testing.T, c *client.Client) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, []ed25519.PrivateKey{key}, c, time.Hour)
}

func sign(t *testing.T, keys []ed25519.PrivateKey, c *client.Client, ttl time.Duration) string {
	t.Helper()
	signer, err := identity.NewSigner(keys)
	if err != nil {
		t.Fatal(err)
	}
	user, session := claimsOf(t, c.Token)
	token, _, err := signer.Sign(user, session, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
