package service

import (
	"net/http"

	"chatapp.dev/internal/platform/identity"
)

// KeysHandler serves the public keys as a JSON Web Key Set (RFC 7517). A copy is good for as long as our own verifiers
// keep theirs, which is what a rotation has to wait for anyway.
func KeysHandler(signer *identity.Signer) http.Handler {
	jwks := signer.JWKS()
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "public, max-age=300")
		// A client that is gone is nobody's failure.
		_, _ = w.Write(jwks)
	})
}
