// Package sendq keeps what connections are to be sent, and sends it.
//
// Guaranteed: a connection gets its frames whole and in the order in which they were pushed. Push never blocks, so that
// nobody waits for a client. A connection's queue is bounded in bytes and so are all queues of the process together;
// the bound holds by giving up the connection: one whose own queue is full, one that takes nothing for too long, or,
// when the process's bound is reached, the one with the longest queue. What such a connection has not been sent is
// lost with it, which its owner must make up for.
//
// Connections cost no goroutine. A few workers, as many as there are processors, write without ever blocking: what the
// kernel does not take at once is left to a goroutine that lasts until the connection is up to date again. Frames that
// have come together while a connection waited for its turn leave in one write, so that the more there is to send the
// less each frame costs.
package sendq

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Why a queue was given up.
var (
	// ErrFull means that the client was too slow for what it was sent.
	ErrFull = errors.New("the queue is full")
	// ErrMemory means that the queues of the process were too large together, and this one was the largest.
	ErrMemory = errors.New("the process's queues are full")
	// ErrStalled means that the client took nothing for the whole of the write timeout.
	ErrStalled = errors.New("the client takes nothing")
	// ErrBroken means that the connection failed.
	ErrBroken = errors.New("the connection is broken")
)

const (
	// overhead is what a frame in a queue costs beside its bytes.
	overhead = 96
	// batch is the most bytes that are written at once, give or take a frame. It is also how much a frame that is pushed
	// first has to wait for at a client that is slow.
	batch = 16 << 10
	// chunk is how much must be taken within the write timeout.
	chunk = 16 << 10
)

// Limits are the bounds of a pool.
type Limits struct {
	// Queue bounds the bytes that wait for one connection. What is pushed at once is let in whatever its size while no more
	// than half as many wait, since a client that reads could be sent nothing longer otherwise.
	Queue int
	// Total bounds the bytes that wait for all of them.
	Total int64
	// WriteTimeout is how long a client may take to take the next 16 KiB.
	WriteTimeout time.Duration
}

// Pool writes the queues of a process.
type Pool struct {
	limits Limits
	total  atomic.Int64
	// evicted is told of every queue that was given up.
	evicted func(reason error)

	mu     sync.Mutex
	queues map[*Queue]struct{}

	work    sync.Cond
	workMu  sync.Mutex
	ready   []*Queue
	stopped bool
	workers sync.WaitGroup
}

// New returns a pool whose workers run until Stop. evicted is told of each queue that was given up, and why.
func New(limits Limits, evicted func(reason error)) *Pool {
	p := &Pool{limits: limits, evicted: evicted, queues: make(map[*Queue]struct{})}
	p.work.L = &p.workMu
	for range runtime.GOMAXPROCS(0) {
		p.workers.Go(p.run)
	}
	return p
}

// Stop ends the workers. Frames that are still queued stay unsent.
func (p *Pool) Stop() {
	p.workMu.Lock()
	p.stopped = true
	p.workMu.Unlock()
	p.work.Broadcast()
	p.workers.Wait()
}

// Queued returns how many bytes wait to be sent.
func (p *Pool) Queued() int64 { return p.total.Load() }

// Open returns the queue of a connection, which the pool writes to. Each frame is written as encode appends it. When the
// pool gives the connection up, it drops what is queued and calls evicted, once and from any goroutine, with the reason.
func (p *Pool) Open(conn net.Conn, encode func(dst []byte, f Frame) []byte, evicted func(reason error)) *Queue {
	q := &Queue{pool: p, conn: conn, encode: encode, evicted: evicted}
	if raw, ok := conn.(syscall.Conn); ok {
		// Without it, every write is left to a goroutine.
		q.raw, _ = raw.SyscallConn()
	}
	p.add(q)
	return q
}

// OpenPulled returns a queue that its owner empties by Pull, for a connection which only the owner can write to.
func (p *Pool) OpenPulled(encode func(dst []byte, f Frame) []byte, evicted func(reason error)) *Queue {
	q := &Queue{pool: p, encode: encode, evicted: evicted, pulls: make(chan struct{}, 1)}
	p.add(q)
	return q
}

func (p *Pool) add(q *Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queues[q] = struct{}{}
}

func (p *Pool) remove(q *Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.queues, q)
}

// relieve gives up the largest queue.
func (p *Pool) relieve() {
	p.mu.Lock()
	var largest *Queue
	size := 0
	for q := range p.queues {
		q.mu.Lock()
		// One that is finished or given up is on its way out already.
		if q.bytes > size && !q.finished && !q.given {
			largest, size = q, q.bytes
		}
		q.mu.Unlock()
	}
	p.mu.Unlock()
	if largest != nil {
		largest.evict(ErrMemory)
	}
}

// schedule makes a worker write a queue.
func (p *Pool) schedule(q *Queue) {
	p.workMu.Lock()
	p.ready = append(p.ready, q)
	p.workMu.Unlock()
	p.work.Signal()
}

// run is a worker.
func (p *Pool) run() {
	w := &writer{buffer: make([]byte, 0, batch+chunk)}
	w.attempt = w.write
	var mine []*Queue
	for {
		p.workMu.Lock()
		for len(p.ready) == 0 && !p.stopped {
			p.work.Wait()
		}
		if p.stopped {
			p.workMu.Unlock()
			return
		}
		// A few at a time, so that the lock is taken less often and the other workers have something to do as well.
		n := min(len(p.ready), 1+len(p.ready)/(2*runtime.GOMAXPROCS(0)), 32)
		mine = append(mine[:0], p.ready[:n]...)
		clear(p.ready[:n])
		if n == len(p.ready) {
			p.ready = p.ready[:0]
		} else {
			p.ready = p.ready[n:]
		}
		p.workMu.Unlock()
		for _, q := range mine {
			q.flush(w)
		}
		clear(mine)
	}
}

// Queue is what one connection is to be sent.
type Queue struct {
	pool    *Pool
	conn    net.Conn
	raw     syscall.RawConn
	encode  func(dst []byte, f Frame) []byte
	evicted func(reason error)
	// pulls has an item when there may be something to pull.
	pulls chan struct{}

	mu sync.Mutex
	// frames are those that wait, from next on.
	frames []Frame
	next   int
	// bytes is the size of what is queued and of what is being written.
	bytes int
	// writing is the size of what was taken out of frames and is not written yet.
	writing int
	// busy is set while a worker has the queue or is to have it, or a goroutine writes it.
	busy bool
	// finished is set when nothing may be pushed any more, and closed when nothing is written any more.
	finished, closed bool
	// cut closes the connection when all is written.
	cut bool
	// given is set when the queue was given up.
	given bool
	// room is closed when there is room, for those who wait for it.
	room chan struct{}
}

// Push queues frames, all of them or none. Once the queue is finished, given up or closed, frames are dropped.
func (q *Queue) Push(frames ...Frame) {
	size := 0
	for _, f := range frames {
		size += f.size() + overhead
	}
	q.mu.Lock()
	if q.finished || q.closed || q.given {
		q.mu.Unlock()
		return
	}
	if q.bytes > q.pool.limits.Queue/2 && q.bytes+size > q.pool.limits.Queue {
		q.mu.Unlock()
		q.evict(ErrFull)
		return
	}
	for _, f := range frames {
		q.append(f, f.size()+overhead)
	}
	q.mu.Unlock()
	if q.pool.total.Load() > q.pool.limits.Total {
		q.pool.relieve()
	}
}

// PushFirst queues a frame before all that wait. It is for the control frames of a WebSocket, which may come between any
// two messages.
func (q *Queue) PushFirst(f Frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.finished || q.closed || q.given {
		return
	}
	q.append(f, f.size()+overhead)
	copy(q.frames[q.next+1:], q.frames[q.next:])
	q.frames[q.next] = f
}

// Finish queues the last frame. Unless it keeps them, what was queued before is dropped. With cut, the connection is
// closed once all is written.
func (q *Queue) Finish(f Frame, keep, cut bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.finished || q.closed {
		return
	}
	if !keep {
		q.drop()
	}
	q.append(f, f.size()+overhead)
	q.finished, q.cut = true, cut
	q.tellRoom()
}

// Close gives up what is not written yet and closes the connection.
func (q *Queue) Close() {
	q.mu.Lock()
	q.close()
	q.mu.Unlock()
	q.pool.remove(q)
}

// close needs mu.
func (q *Queue) close() {
	if q.closed {
		return
	}
	q.closed = true
	q.drop()
	q.pool.total.Add(-int64(q.writing))
	q.bytes -= q.writing
	q.writing = 0
	if q.conn != nil {
		_ = q.conn.Close()
	}
	if q.pulls != nil {
		q.wakePuller()
	}
}

// Room waits until the queue is less than half full, for a sender that can go at the client's pace.
func (q *Queue) Room(ctx context.Context) error {
	for {
		q.mu.Lock()
		if q.closed || q.finished || q.bytes <= q.pool.limits.Queue/2 {
			q.mu.Unlock()
			return ctx.Err()
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// evict gives the queue up.
func (q *Queue) evict(reason error) {
	q.mu.Lock()
	if q.given || q.closed {
		q.mu.Unlock()
		return
	}
	q.given = true
	q.drop()
	q.mu.Unlock()
	q.pool.evicted(reason)
	q.evicted(reason)
}

// append needs mu.
func (q *Queue) append(f Frame, size int) {
	if q.next > 0 && len(q.frames) == cap(q.frames) && q.next >= len(q.frames)/2 {
		// A queue that is never empty would otherwise grow by all that was ever in it.
		waiting := copy(q.frames, q.frames[q.next:])
		clear(q.frames[waiting:])
		q.frames, q.next = q.frames[:waiting], 0
	}
	q.frames = append(q.frames, f)
	q.bytes += size
	q.pool.total.Add(int64(size))
	switch {
	case q.pulls != nil:
		q.wakePuller()
	case !q.busy:
		q.busy = true
		q.pool.schedule(q)
	}
}

// drop forgets what is queued and not being written. It needs mu.
func (q *Queue) drop() {
	size := q.bytes - q.writing
	q.bytes -= size
	q.pool.total.Add(-int64(size))
	q.frames, q.next = nil, 0
	q.tellRoom()
}

// take appends to dst what fits into a batch. It needs mu.
func (q *Queue) take(dst []byte, most int) []byte {
	for q.next < len(q.frames) && len(dst) < most {
		f := q.frames[q.next]
		dst = q.encode(dst, f)
		q.frames[q.next] = Frame{}
		q.next++
		q.writing += f.size() + overhead
	}
	if q.next == len(q.frames) {
		// Most connections are idle most of the time, and keep nothing meanwhile.
		q.frames, q.next = nil, 0
	}
	return dst
}

// written notes that what was taken is written. It needs mu.
func (q *Queue) written() {
	q.bytes -= q.writing
	q.pool.total.Add(-int64(q.writing))
	q.writing = 0
	q.tellRoom()
}

// tellRoom needs mu.
func (q *Queue) tellRoom() {
	if q.room != nil && (q.closed || q.finished || q.bytes <= q.pool.limits.Queue/2) {
		close(q.room)
		q.room = nil
	}
}

// flush writes what is queued as far as the kernel takes it at once.
func (q *Queue) flush(w *writer) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return
	}
	w.buffer = q.take(w.buffer[:0], batch)
	q.mu.Unlock()
	n, err := 0, error(nil)
	if q.raw != nil {
		n, err = w.try(q.raw)
	}
	switch {
	case err != nil:
		q.broken()
	case n < len(w.buffer):
		rest := append([]byte(nil), w.buffer[n:]...)
		go q.insist(rest)
	default:
		q.mu.Lock()
		q.written()
		again := q.more()
		q.mu.Unlock()
		if again {
			q.pool.schedule(q)
		}
	}
}

// more says whether there is more to write, and is what ends the work on a queue if there is not. It needs mu.
func (q *Queue) more() bool {
	switch {
	case q.closed:
		return false
	case len(q.frames) > q.next:
		return true
	}
	q.busy = false
	if q.cut {
		q.close()
	}
	return false
}

// insist writes what is in the buffer and then what is queued, at the client's pace.
func (q *Queue) insist(buffer []byte) {
	for {
		for rest := buffer; len(rest) > 0; {
			part := rest[:min(len(rest), chunk)]
			_ = q.conn.SetWriteDeadline(time.Now().Add(q.pool.limits.WriteTimeout))
			if _, err := q.conn.Write(part); err != nil {
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					q.evict(ErrStalled)
				}
				// A part of a frame may have been written, so nothing can follow it.
				q.broken()
				return
			}
			rest = rest[len(part):]
		}
		q.mu.Lock()
		q.written()
		if q.closed || len(q.frames) == q.next {
			// The workers' writes have no deadline. It must be gone before one of them can have the queue.
			_ = q.conn.SetWriteDeadline(time.Time{})
			q.more()
			q.mu.Unlock()
			return
		}
		buffer = q.take(buffer[:0], batch)
		q.mu.Unlock()
	}
}

// broken gives up a connection that cannot be written to.
func (q *Queue) broken() {
	q.evict(ErrBroken)
	q.mu.Lock()
	q.close()
	q.mu.Unlock()
}

// Pull waits for something to be sent, and appends it to dst. What the call before returned counts as sent. It returns
// false when the queue is finished and empty, or closed. A deadline of ctx, or its end, returns an empty slice and true.
func (q *Queue) Pull(ctx context.Context, dst []byte) ([]byte, bool) {
	for {
		q.mu.Lock()
		q.written()
		dst = q.take(dst[:0], batch)
		over := q.closed || q.finished && len(dst) == 0
		q.mu.Unlock()
		if over || len(dst) > 0 {
			return dst, !over
		}
		select {
		case <-q.pulls:
		case <-ctx.Done():
			return dst, true
		}
	}
}

func (q *Queue) wakePuller() {
	select {
	case q.pulls <- struct{}{}:
	default:
	}
}
