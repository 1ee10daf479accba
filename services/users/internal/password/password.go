// Package password turns passwords into argon2id hashes and checks them.
//
// A check costs the same whether there is an account or not (see [Hasher.Check]), so that its duration does not tell.
// It cannot hide that a hash was made under other settings: until the account's next sign-in renews the hash, the old
// one takes the old time.
//
// No more hashes are computed at once than the settings allow, because each holds its memory and a core; who comes
// later waits for as long as the context lets it.
package password

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"

	"github.com/alexedwards/argon2id"
	"golang.org/x/text/unicode/norm"

	"chatapp.dev/internal/platform/run"
)

// The bounds of the settings: argon2 needs 8 KiB a lane, and more than the upper ones is a mistake of the unit.
const (
	minMemoryKiB  = 8
	maxMemoryKiB  = 4 << 20
	maxIterations = 1000
)

const (
	lanes     = 1 // More lanes buy an attacker the same as us; we would rather hash several passwords at once.
	saltBytes = 16
	keyBytes  = 32
)

// Config says how much a hash costs. The defaults are OWASP's recommendation for argon2id.
type Config struct {
	// MemoryKiB is the memory that a hash fills.
	MemoryKiB uint32 `name:"hash-memory" default:"19456" help:"Memory that hashing a password fills, in KiB (8 to 4194304). When it grows, a hash is renewed at its owner's next sign-in."`
	// Iterations is how often it is filled.
	Iterations uint32 `name:"hash-iterations" default:"2" help:"How often hashing a password goes over its memory (1 to 1000). When it grows, a hash is renewed at its owner's next sign-in."`
	// Concurrency is how many passwords are hashed at once.
	Concurrency int `name:"hash-concurrency" default:"0" help:"How many passwords are hashed at once, each with its own memory; others wait. 0 means one for each processor."`
}

// Validate names the first setting that is out of bounds.
func (c *Config) Validate() error {
	switch {
	case c.MemoryKiB < minMemoryKiB || c.MemoryKiB > maxMemoryKiB:
		return run.Invalid(&c.MemoryKiB, "must be from %d to %d KiB, but is %d", minMemoryKiB, maxMemoryKiB, c.MemoryKiB)
	case c.Iterations < 1 || c.Iterations > maxIterations:
		return run.Invalid(&c.Iterations, "must be from 1 to %d, but is %d", maxIterations, c.Iterations)
	case c.Concurrency < 0:
		return run.Invalid(&c.Concurrency, "must be 0 or more, but is %d", c.Concurrency)
	}
	return nil
}

// Hasher hashes and checks passwords. It is safe for concurrent use.
type Hasher struct {
	params argon2id.Params
	slots  chan struct{}
	// decoy is the hash of a password that nobody knows, for logins that have none.
	decoy string
}

// New returns a Hasher, for which it hashes once.
func New(cfg Config) (*Hasher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("password settings: %w", err)
	}
	concurrency := cfg.Concurrency
	if concurrency == 0 {
		concurrency = runtime.GOMAXPROCS(0)
	}
	h := &Hasher{
		params: argon2id.Params{
			Memory:      cfg.MemoryKiB,
			Iterations:  cfg.Iterations,
			Parallelism: lanes,
			SaltLength:  saltBytes,
			KeyLength:   keyBytes,
		},
		slots: make(chan struct{}, concurrency),
	}
	decoy, err := h.Hash(context.Background(), rand.Text())
	if err != nil {
		return nil, err
	}
	h.decoy = decoy
	return h, nil
}

// Hash returns a salted hash of a password, which names its own settings.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	release, err := h.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	hash, err := argon2id.CreateHash(normalise(password), &h.params)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

// Check says whether the password is the one that was hashed, and whether the hash is weaker than the settings ask for
// by now. An empty hash stands for an account that does not exist or has no password: no password is right then, and to
// find that out costs one hash, too.
func (h *Hasher) Check(ctx context.Context, password, hash string) (right, weak bool, err error) {
	release, err := h.acquire(ctx)
	if err != nil {
		return false, false, err
	}
	defer release()
	known := hash != ""
	if !known {
		hash = h.decoy
	}
	match, params, err := argon2id.CheckHash(normalise(password), hash)
	if err != nil {
		// The library's error can quote the hash.
		return false, false, errors.New("check password: the stored hash cannot be read")
	}
	weak = params.Memory < h.params.Memory || params.Iterations < h.params.Iterations
	return match && known, weak, nil
}

// acquire waits for a slot and returns what gives it back.
func (h *Hasher) acquire(ctx context.Context) (release func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to hash a password: %w", ctx.Err())
	}
}

// normalise makes the same password of what different keyboards send for the same characters.
func normalise(password string) string { return norm.NFKC.String(password) }
