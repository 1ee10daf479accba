package identity

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"chatapp.dev/internal/platform/errs"
)

const (
	// refreshAfter is the age at which a key set is read again, so that a withdrawn key stops counting.
	refreshAfter = 5 * time.Minute
	// fetchInterval is the least time between two reads, whatever tokens are thrown at us.
	fetchInterval = time.Second
	fetchTimeout  = 5 * time.Second
)

var errUnknownKey = errors.New("no published key has this id")

// keySet is what one read of the published keys gave.
type keySet struct {
	keys map[string]ed25519.PublicKey
	// asOf is when the set was asked for: a key published later cannot be missed in it.
	asOf time.Time
}

// keyring knows the published keys. While they cannot be read, those known stay good: a service must not refuse
// everybody because users is down.
type keyring struct {
	fetch  KeyFetcher
	known  atomic.Pointer[keySet]
	flight singleflight.Group

	// These two belong to the flight, of which there is one at a time.
	failedAt time.Time
	failure  error
}

func newKeyring(fetch KeyFetcher) *keyring {
	r := &keyring{fetch: fetch}
	r.known.Store(&keySet{})
	return r
}

// key returns the published key with an id. Only a set that was asked for after the token came can tell that there is
// none; then the error is errUnknownKey. It is errs.Unavailable when that set cannot be had.
func (r *keyring) key(ctx context.Context, kid string) (ed25519.PublicKey, error) {
	arrived := time.Now()
	for {
		set := r.known.Load()
		if key, ok := set.keys[kid]; ok {
			if arrived.Sub(set.asOf) >= refreshAfter {
				r.refresh() // Nobody waits for it: the key is known.
			}
			return key, nil
		}
		if !set.asOf.Before(arrived) {
			return nil, errUnknownKey
		}
		var err error
		select {
		case result := <-r.refresh():
			err = result.Err
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return nil, errs.Wrap(errs.Unavailable, err, "access tokens cannot be checked now; try again")
		}
	}
}

// refresh reads the key set, unless a read is under way already, and reports on the channel. It runs on nobody's
// context, because its result is everybody's.
func (r *keyring) refresh() <-chan singleflight.Result {
	return r.flight.DoChan("", func() (any, error) {
		if r.failure != nil && time.Since(r.failedAt) < fetchInterval {
			return nil, r.failure
		}
		time.Sleep(fetchInterval - time.Since(r.known.Load().asOf))

		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		asOf := time.Now()
		keys, err := r.read(ctx)
		if err != nil {
			r.failure, r.failedAt = fmt.Errorf("read the published keys: %w", err), time.Now()
			return nil, r.failure
		}
		r.failure = nil
		r.known.Store(&keySet{keys: keys, asOf: asOf})
		return nil, nil
	})
}

// read fetches the key set and keeps the keys of our algorithm. As RFC 7517 asks, others are passed over. A set that
// holds none of ours is a failure of the publisher, and does not sign everybody out.
func (r *keyring) read(ctx context.Context) (map[string]ed25519.PublicKey, error) {
	jwks, err := r.fetch(ctx)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		return nil, fmt.Errorf("decode key set: %w", err)
	}
	keys := make(map[string]ed25519.PublicKey)
	for _, raw := range set.Keys {
		var jwk jose.JSONWebKey
		if err := json.Unmarshal(raw, &jwk); err != nil {
			continue
		}
		if key, ok := jwk.Key.(ed25519.PublicKey); ok && jwk.KeyID != "" {
			keys[jwk.KeyID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no Ed25519 key in the key set")
	}
	return keys, nil
}
