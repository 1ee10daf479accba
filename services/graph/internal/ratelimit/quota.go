package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"sync"
	"time"

	"chatapp.dev/internal/platform/ids"
)

// quota is a rate with a burst, as the algorithm takes it. A caller's whole state is one moment, at which the burst will
// be full again: each request moves it on by one interval, and it may not come to lie more than the tolerance ahead.
type quota struct {
	interval  time.Duration
	tolerance time.Duration
}

// newQuota returns the quota of a number of requests a second; 0 is no limit.
func newQuota(rate float64, burst int) quota {
	if rate == 0 {
		return quota{}
	}
	interval := time.Duration(float64(time.Second) / rate)
	return quota{interval: interval, tolerance: time.Duration(burst) * interval}
}

func (q quota) limits() bool { return q.interval > 0 }

// count counts a request of somebody whose burst is full at a moment. It returns that moment anew, and how long to wait
// when the request is one too many.
func (q quota) count(now, full time.Time) (newFull time.Time, wait time.Duration) {
	if full.Before(now) {
		full = now
	}
	// Further ahead it can only be by a clock that was set back.
	if latest := now.Add(q.tolerance); full.After(latest) {
		full = latest
	}
	newFull = full.Add(q.interval)
	if wait = newFull.Sub(now) - q.tolerance; wait > 0 {
		return full, wait
	}
	return newFull, 0
}

// key names a caller: a byte for the kind, and a user's id or an address' digest.
type key [1 + ids.Size]byte

func userKey(user ids.ID) key {
	k := key{'u'}
	copy(k[1:], user[:])
	return k
}

// addressKey counts all of an IPv6 /64 as one, which is what a single client may have to itself.
func addressKey(addr netip.Addr) key {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		panic(err) // Only for a number of bits that an address does not have.
	}
	raw := network.Addr().As16()
	digest := sha256.Sum256(raw[:])
	k := key{'a'}
	copy(k[1:], digest[:])
	return k
}

// kind tells what a key names, for metrics.
func (k key) kind() string {
	if k[0] == 'u' {
		return "user"
	}
	return "address"
}

// redis is the name of the key in Redis. It has no hash tag: each key is counted by itself, wherever a cluster has it.
func (k key) redis() string { return "chatapp:rate:" + string(k[0]) + ":" + hex.EncodeToString(k[1:]) }

// table keeps a moment for each of so many callers at most. An entry is worth nothing once its moment has passed.
type table struct {
	most int

	mu      sync.Mutex
	moments map[key]time.Time
}

func newTable(most int) *table { return &table{most: most, moments: make(map[key]time.Time)} }

func (t *table) get(k key) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	moment, ok := t.moments[k]
	return moment, ok
}

func (t *table) put(now time.Time, k key, moment time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(now, k, moment)
}

// count counts a request in the table.
func (t *table) count(now time.Time, c check) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	full, wait := c.quota.count(now, t.moments[c.key])
	t.set(now, c.key, full)
	return wait
}

// looked is how many entries a new one looks at, to find those that are worth nothing. As it is more than one, these get
// fewer than they come to be.
const looked = 3

// set needs t.mu. Whoever fills the table with names of their own gets others forgotten, one for each, and those then have
// a full burst: it limits nobody less than nobody would be limited without it.
func (t *table) set(now time.Time, k key, moment time.Time) {
	if _, known := t.moments[k]; !known {
		left := looked
		for other, until := range t.moments {
			if left--; left < 0 {
				break
			}
			if !until.After(now) || len(t.moments) >= t.most {
				delete(t.moments, other)
			}
		}
	}
	t.moments[k] = moment
}
