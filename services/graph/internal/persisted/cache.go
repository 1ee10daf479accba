package persisted

import (
	"fmt"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxDocument is the longest text that is kept. Those of a client's program have a few hundred bytes.
const maxDocument = 64 << 10

// cache keeps the documents that were asked for last, up to a number and a sum of bytes.
type cache struct {
	maxBytes int

	mu    sync.Mutex
	texts *simplelru.LRU[string, string]
	bytes int
}

func newCache(entries, bytes int) *cache {
	c := &cache{maxBytes: bytes}
	texts, err := simplelru.NewLRU(entries, func(id, text string) { c.bytes -= size(id, text) })
	if err != nil {
		panic(fmt.Sprintf("persisted: %v", err)) // Only for a number that Config refuses.
	}
	c.texts = texts
	return c
}

// get returns the text with this hash.
func (c *cache) get(id string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.texts.Get(id)
}

// add keeps a text, and drops those that nobody has asked for the longest as far as there is no room for all.
func (c *cache) add(id, text string) {
	if len(text) > maxDocument {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.texts.Get(id); known {
		return
	}
	c.texts.Add(id, text)
	c.bytes += size(id, text)
	for c.bytes > c.maxBytes {
		c.texts.RemoveOldest()
	}
}

func size(id, text string) int { return len(id) + len(text) }
