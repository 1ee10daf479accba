package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// openers is how many connections are opened at a time.
	openers = 32
	// patience bounds whatever a server is waited for. It is long because a busy machine is slow, not broken.
	patience = time.Minute
	// retryAfter is how long an event is waited for that shows that a subscription is established.
	retryAfter = 500 * time.Millisecond
)

// hello is what a client says once it is connected.
type hello struct {
	// init is the payload of the message connection_init, and subscribe a subscription's; without them, the server sends
	// events to whoever is connected.
	init, subscribe string
}

// conn is a client. It is a socket and what has come of a frame that is not whole yet.
type conn struct {
	fd      int
	port    uint16 // Of this side.
	user    int
	pending []byte
	events  int // How many have arrived.
}

// event is one that was published, or is about to be.
type event struct {
	sent time.Time
	left int           // By how many clients it is still awaited.
	done chan struct{} // Closed when it is by none.
}

// fleet are clients of one server, all read by one goroutine.
type fleet struct {
	address string
	poller  *poller
	ended   chan struct{} // Closed when nobody reads any more.
	broken  chan struct{} // Closed when failure is set.

	mu      sync.Mutex
	conns   []*conn
	failure error
	halted  bool
	// first is the number of the first of the events. What has a lower one is somebody else's.
	first      int
	events     []*event
	place      int // Where an event has its number.
	frameBytes int // How long an event is.
	delivered  int
	recording  bool
	samples    []time.Duration
}

// newFleet returns clients without a connection, of the server at an address. Its events have numbers from first on.
func newFleet(address string, first int) (*fleet, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	f := &fleet{address: address, poller: p, first: first, ended: make(chan struct{}), broken: make(chan struct{})}
	go f.read()
	return f, nil
}

// halt ends the reading. The connections stay open.
func (f *fleet) halt() {
	f.mu.Lock()
	f.halted = true
	f.mu.Unlock()
	<-f.ended
}

// close closes every connection, without a farewell.
func (f *fleet) close() {
	f.halt()
	for _, c := range f.conns {
		_ = syscall.Close(c.fd)
	}
	f.poller.close()
}

// open connects one client for each of the users. They are subscribed a little later: see settle.
func (f *fleet) open(ctx context.Context, users []int, greet func(user int) hello) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(openers)
	for _, user := range users {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			c, err := connectAs(f.address, greet(user))
			if err != nil {
				return err
			}
			c.user = user
			return f.add(c)
		})
	}
	return group.Wait()
}

func (f *fleet) add(c *conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	if err := syscall.SetNonblock(c.fd, true); err != nil {
		return fmt.Errorf("open a connection: %w", err)
	}
	return f.poller.add(c.fd, len(f.conns)-1)
}

// connectAs opens a connection and says hello.
func connectAs(address string, h hello) (_ *conn, err error) {
	c := &conn{}
	if c.fd, c.port, err = dialSocket(address, patience); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(c.fd)
		}
	}()
	err = c.write(fmt.Appendf(nil, "GET /graphql HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n", address))
	if err != nil {
		return nil, err
	}
	if err := c.upgraded(); err != nil {
		return nil, err
	}
	if h.init == "" {
		return c, nil
	}
	if err := c.write(clientFrame(opText, []byte(`{"type":"connection_init","payload":`+h.init+`}`))); err != nil {
		return nil, err
	}
	if err := c.acknowledged(); err != nil {
		return nil, err
	}
	return c, c.write(clientFrame(opText, []byte(`{"id":"1","type":"subscribe","payload":`+h.subscribe+`}`)))
}

// upgraded reads the answer to the handshake.
func (c *conn) upgraded() error {
	for {
		head, rest, whole := bytes.Cut(c.pending, []byte("\r\n\r\n"))
		if whole {
			if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
				return fmt.Errorf("the server refuses the WebSocket: %.300s", c.pending)
			}
			c.pending = slices.Clone(rest)
			return nil
		}
		if err := c.more(); err != nil {
			return fmt.Errorf("await the handshake: %w", err)
		}
	}
}

// acknowledged reads up to connection_ack.
func (c *conn) acknowledged() error {
	for {
		f, rest, whole, err := cutFrame(c.pending)
		if err != nil {
			return err
		}
		if !whole {
			if err := c.more(); err != nil {
				return fmt.Errorf("await connection_ack: %w", err)
			}
			continue
		}
		c.pending = rest
		if bytes.Contains(f.payload, []byte(`"connection_ack"`)) {
			return nil
		}
		if err := c.answer(f); err != nil {
			return err
		}
	}
}

// more waits for more to read.
func (c *conn) more() error {
	buffer := make([]byte, 4<<10)
	n, err := syscall.Read(c.fd, buffer)
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(c.fd, buffer)
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	c.pending = append(c.pending, buffer[:max(0, n)]...)
	return err
}

func (c *conn) write(b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(c.fd, b)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("write: %w", err)
		}
		b = b[max(0, n):]
	}
	return nil
}

// answer does what the server expects of a client in between events: it answers pings, of WebSocket and of the protocol.
// Anything that ends the subscription is an error.
func (c *conn) answer(f frame) error {
	switch {
	case f.opcode == opPing:
		return c.write(clientFrame(opPong, f.payload))
	case f.opcode == opPong:
		return nil
	case f.opcode == opClose && len(f.payload) >= 2:
		return fmt.Errorf("the server closed the socket: %d %s", int(f.payload[0])<<8|int(f.payload[1]), f.payload[2:])
	case f.opcode == opText && bytes.Contains(f.payload, []byte(`"type":"ping"`)):
		return c.write(clientFrame(opText, []byte(`{"type":"pong"}`)))
	case f.opcode == opText && bytes.Contains(f.payload, []byte(`"type":"pong"`)):
		return nil
	}
	return fmt.Errorf("a frame of the kind %#x that this client does not expect: %.300s", f.opcode, f.payload)
}

// read hands what arrives to the clients until the fleet is halted or broken.
func (f *fleet) read() {
	defer close(f.ended)
	buffer := make([]byte, 256<<10)
	var slots []int
	for {
		var err error
		slots, err = f.poller.wait(slots[:0], 50*time.Millisecond)
		if !f.receiveAll(slots, buffer, err) {
			return
		}
	}
}

func (f *fleet) receiveAll(slots []int, buffer []byte, err error) (goOn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, slot := range slots {
		if err == nil && !f.halted {
			err = f.receive(f.conns[slot], buffer)
		}
	}
	if err != nil && !f.halted {
		f.fail(err)
	}
	return !f.halted && f.failure == nil
}

// fail needs f.mu.
func (f *fleet) fail(err error) {
	if f.failure == nil {
		f.failure = err
		close(f.broken)
	}
}

// receive reads once and takes the frames. It needs f.mu.
func (f *fleet) receive(c *conn, buffer []byte) error {
	kept := copy(buffer, c.pending)
	n, err := syscall.Read(c.fd, buffer[kept:])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return errors.New("the server ended a connection")
	}
	now := time.Now()
	rest := buffer[:kept+n]
	for {
		message, after, whole, err := cutFrame(rest)
		if err != nil {
			return err
		}
		if !whole {
			break
		}
		rest = after
		if err := f.take(c, message, now); err != nil {
			return err
		}
	}
	c.pending = append(c.pending[:0], rest...)
	return nil
}

// take counts an event, and answers anything else. It needs f.mu.
func (f *fleet) take(c *conn, message frame, now time.Time) error {
	number, place, err := eventNumber(message.payload, f.place)
	if message.opcode != opText || err != nil {
		return c.answer(message)
	}
	c.events++
	f.place, f.frameBytes = place, len(message.payload)
	if number -= f.first; number < 0 || number >= len(f.events) {
		return nil
	}
	e := f.events[number]
	e.left--
	switch {
	case e.left < 0:
		return fmt.Errorf("event %d was delivered more often than there are clients", number)
	case e.left == 0:
		close(e.done)
	}
	f.delivered++
	if f.recording {
		f.samples = append(f.samples, now.Sub(e.sent))
	}
	return nil
}

// announce returns the number of an event that is published next, and is to reach every client.
func (f *fleet) announce() (number int, e *event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e = &event{left: len(f.conns), done: make(chan struct{}), sent: time.Now()}
	f.events = append(f.events, e)
	return f.first + len(f.events) - 1, e
}

// await waits until an event has reached every client.
func (f *fleet) await(ctx context.Context, e *event) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-e.done:
		return nil
	case <-f.broken:
		return f.failure
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		f.mu.Lock()
		defer f.mu.Unlock()
		return fmt.Errorf("an event has not reached %d of %d clients within %v", e.left, len(f.conns), patience)
	}
}

// settle returns once an event has reached every client, which shows that they are subscribed. It publishes events for
// the users of those that none has reached, over and over.
func (f *fleet) settle(ctx context.Context, publish func(ctx context.Context, worker, user, number int) error) error {
	end := time.Now().Add(patience)
	for {
		users := f.silent()
		if len(users) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("no event has reached the clients of %d users within %v", len(users), patience)
		}
		group, publishing := errgroup.WithContext(ctx)
		for worker := range publishers {
			group.Go(func() error {
				for i := worker; i < len(users); i += publishers {
					if err := publish(publishing, worker, users[i], f.unawaited()); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for again := time.Now().Add(retryAfter); len(f.silent()) > 0 && time.Now().Before(again); {
			if err := f.sleep(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// unawaited is announce for an event that only shows who is subscribed.
func (f *fleet) unawaited() (number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, &event{left: math.MaxInt, sent: time.Now()})
	return f.first + len(f.events) - 1
}

// silent returns the users of whose clients one has never got an event.
func (f *fleet) silent() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var users []int
	for _, c := range f.conns {
		if c.events == 0 {
			users = append(users, c.user)
		}
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// sleep lets time pass, unless the fleet breaks.
func (f *fleet) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-f.broken:
		return f.failure
	case <-ctx.Done():
		return ctx.Err()
	}
}

// record begins to keep how long deliveries take, and returns how many there have been.
func (f *fleet) record() (delivered int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recording, f.samples = true, f.samples[:0]
	return f.delivered
}

// recorded ends what record began. It returns how many deliveries there have been, and how long each took since then,
// in ascending order.
func (f *fleet) recorded() (delivered int, took []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recording = false
	took = slices.Clone(f.samples)
	slices.Sort(took)
	return f.delivered, took
}

// stall leaves unread whatever comes from now on, and returns the ports of this side.
func (f *fleet) stall() []uint16 {
	f.halt()
	ports := make([]uint16, len(f.conns))
	for i, c := range f.conns {
		ports[i] = c.port
	}
	return ports
}

// size returns how long an event is, in bytes.
func (f *fleet) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.frameBytes
}
