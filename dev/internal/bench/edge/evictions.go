package edge

import (
	"sync"
	"time"
)

// lookEvery is how often the kernel's list of connections is read.
const lookEvery = 200 * time.Millisecond

// evictions watches how a server closes connections.
type evictions struct {
	address string
	begun   time.Time
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once

	mu      sync.Mutex
	open    []uint16
	after   []time.Duration // When each that is gone was found to be.
	failure error
}

// watchEvictions watches, until end is called, the connections of a server to some ports.
func watchEvictions(server string, ports []uint16) *evictions {
	e := &evictions{
		address: server, begun: time.Now(), open: ports, stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go func() {
		defer close(e.stopped)
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for !e.over() {
			select {
			case <-ticker.C:
				e.look()
			case <-e.stop:
				return
			}
		}
	}()
	return e
}

func (e *evictions) look() {
	listed, err := established(e.address)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.failure = err
		return
	}
	var open []uint16
	for _, port := range e.open {
		if listed[port] {
			open = append(open, port)
		} else {
			e.after = append(e.after, time.Since(e.begun))
		}
	}
	e.open = open
}

// over tells whether there is nothing to watch any more.
func (e *evictions) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.open) == 0 || e.failure != nil
}

// end stops watching.
func (e *evictions) end() {
	e.once.Do(func() { close(e.stop) })
	<-e.stopped
}

// count ends the watch and writes what came of it.
func (e *evictions) count(s *Stalled) error {
	e.end()
	for _, after := range e.after {
		if after.Seconds() <= s.Within+lookEvery.Seconds() {
			s.Evicted++
		}
	}
	s.Watched = time.Since(e.begun).Seconds()
	if len(e.open) == 0 {
		s.Last = e.after[len(e.after)-1].Seconds()
	}
	return e.failure
}
