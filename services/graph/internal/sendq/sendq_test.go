package sendq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// generous are limits that nothing here comes near.
var generous = Limits{Queue: 64 << 20, Total: 1 << 30, WriteTimeout: patience}

// reasons notes why queues were given up.
type reasons struct {
	mu   sync.Mutex
	list []error
}

func (r *reasons) note(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, reason)
}

func (r *reasons) all() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// start returns a pool that stops with the test, and the reasons for which its queues were given up.
func start(t testing.TB, limits Limits) (*Pool, *reasons) {
	given := &reasons{}
	p := New(limits, given.note)
	t.Cleanup(p.Stop)
	return p, given
}

// pair returns both ends of a TCP connection. What the kernel keeps for it is bounded, and so known to be less than what
// the tests push to clients that read nothing.
func pair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialed := make(chan error, 1)
	go func() {
		var err error
		client, err = net.Dial("tcp", listener.Addr().String())
		dialed <- err
	}()
	server, err = listener.Accept()
	if err = errors.Join(err, <-dialed); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	if err := errors.Join(server.(*net.TCPConn).SetWriteBuffer(32<<10), client.(*net.TCPConn).SetReadBuffer(32<<10)); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// open is Open for a queue that the test closes.
func open(t testing.TB, p *Pool, conn net.Conn) (*Queue, *reasons) {
	given := &reasons{}
	q := p.Open(conn, Plain, given.note)
	t.Cleanup(q.Close)
	return q, given
}

// openPulled is OpenPulled for a queue that the test closes.
func openPulled(t testing.TB, p *Pool) (*Queue, *reasons) {
	given := &reasons{}
	q := p.OpenPulled(Plain, given.note)
	t.Cleanup(q.Close)
	return q, given
}

func body(s string) Frame { return Frame{Body: []byte(s)} }

// sized returns a frame that a queue counts as so many bytes.
func sized(n int) Frame { return Frame{Body: make([]byte, n-overhead)} }

func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// pull returns what one call of Pull gets of what is there already.
func pull(t testing.TB, q *Queue) (got string, more bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dst, more := q.Pull(ctx, nil)
	return string(dst), more
}

// record is a frame that its reader can tell from all others, and which shows whether it is whole.
func record(pusher, n uint32, content []byte) Frame {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	head = binary.BigEndian.AppendUint32(head, pusher)
	head = binary.BigEndian.AppendUint32(head, n)
	return Frame{Head: head, Body: content, Tail: binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(content))}
}

// readRecord reads a record.
func readRecord(from io.Reader) (pusher, n uint32, err error) {
	var head [12]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return 0, 0, err
	}
	rest := make([]byte, binary.BigEndian.Uint32(head[:])+4)
	if _, err := io.ReadFull(from, rest); err != nil {
		return 0, 0, fmt.Errorf("within a record: %w", err)
	}
	content, sum := rest[:len(rest)-4], rest[len(rest)-4:]
	if crc32.ChecksumIEEE(content) != binary.BigEndian.Uint32(sum) {
		return 0, 0, errors.New("the record is not whole")
	}
	return binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:]), nil
}

// TestFramesComeWholeAndInOrder has several goroutines push records of all sizes to several queues, whose readers stall
// now and then. Each reader must see the records of each pusher whole, in order, each once, and the end after all.
func TestFramesComeWholeAndInOrder(t *testing.T) {
	t.Parallel()
	const queues, pushers, each = 8, 4, 400
	p, given := start(t, generous)
	shared := make([]byte, 64<<10)
	for i := range shared {
		shared[i] = byte(rand.Uint32())
	}
	var opened []*Queue
	var readers, pushing sync.WaitGroup
	for range queues {
		server, client := pair(t)
		q, _ := open(t, p, server)
		opened = append(opened, q)
		readers.Go(func() {
			var next [pushers + 1]uint32
			for {
				_ = client.SetReadDeadline(time.Now().Add(patience))
				pusher, n, err := readRecord(client)
				if errors.Is(err, io.EOF) && next[pushers] == 1 {
					break
				}
				if err != nil || next[pushers] > 0 || n != next[pusher] {
					t.Errorf("record %d of pusher %d, %v, after %v", n, pusher, err, next)
					return
				}
				next[pusher]++
				if rand.N(200) == 0 {
					time.Sleep(rand.N(5 * time.Millisecond))
				}
			}
			if want := [pushers + 1]uint32{each, each, each, each, 1}; next != want {
				t.Errorf("the connection ended after %v records", next)
			}
		})
	}
	for pusher := range uint32(pushers) {
		pushing.Go(func() {
			var n [queues]uint32
			for range each * queues {
				i := rand.N(queues)
				for n[i] == each {
					i = (i + 1) % queues
				}
				size := rand.N(200)
				if rand.N(50) == 0 {
					size = rand.N(len(shared))
				}
				opened[i].Push(record(pusher, n[i], shared[:size]))
				n[i]++
				if rand.N(20) == 0 {
					runtime.Gosched()
				}
				if rand.N(100) == 0 {
					if err := opened[i].Room(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	pushing.Wait()
	for _, q := range opened {
		q.Finish(record(pushers, 0, nil), true, true)
	}
	readers.Wait()
	waitFor(t, "nothing is queued", func() bool { return p.Queued() == 0 })
	if list := given.all(); list != nil {
		t.Errorf("given up: %v", list)
	}
	for _, q := range opened {
		q.Close()
		q.Push(record(0, 0, nil))
		q.PushFirst(record(0, 0, nil))
		q.Finish(record(0, 0, nil), true, true)
	}
	if n := p.Queued(); n != 0 {
		t.Errorf("%d bytes are queued", n)
	}
	if n := len(p.queues); n != 0 {
		t.Errorf("the pool keeps %d queues", n)
	}
}

// TestFramesThatComeTogetherLeaveTogether pushes while the first frame is being written. On a pipe each write is read as
// it was written.
func TestFramesThatComeTogetherLeaveTogether(t *testing.T) {
	t.Parallel()
	p, _ := start(t, generous)
	server, client := net.Pipe()
	defer client.Close()
	q, _ := open(t, p, server)
	q.Push(body("first"))
	buffer := make([]byte, 1<<10)
	if _, err := io.ReadFull(client, buffer[:1]); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		q.Push(Frame{Head: []byte("<"), Body: fmt.Append(nil, i), Tail: []byte(">")})
	}
	q.PushFirst(body("ping"))
	q.PushFirst(body("pong"))
	for _, want := range []string{"irst", "pongping<0><1><2><3><4>"} {
		if n, err := client.Read(buffer); err != nil || string(buffer[:n]) != want {
			t.Errorf("read %q, %v, want %q", buffer[:n], err, want)
		}
	}
	waitFor(t, "nothing is queued", func() bool { return p.Queued() == 0 })
}

// TestPushNeverBlocks pushes to somebody who reads nothing, up to the limit and beyond it.
func TestPushNeverBlocks(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	p, all := start(t, Limits{Queue: limit, Total: 1 << 30, WriteTimeout: patience})
	server, client := pair(t)
	q, given := open(t, p, server)
	content := make([]byte, 1000)
	q.Push(record(0, 0, content))
	waitFor(t, "the first is sent", func() bool { return p.Queued() == 0 })
	pushed := make(chan uint32, 1)
	go func() {
		n := uint32(1)
		for ; given.all() == nil; n++ {
			q.Push(record(0, n, content))
			if queued := p.Queued(); queued > limit {
				t.Errorf("%d bytes are queued", queued)
				break
			}
		}
		pushed <- n
	}()
	var n uint32
	select {
	case n = <-pushed:
	case <-time.After(patience):
		t.Fatal("Push blocks")
	}
	q.Push(record(0, n, content))
	q.PushFirst(record(0, n, content))
	q.Finish(record(1, 0, nil), true, true)
	q.Finish(record(1, 1, nil), true, true)
	for _, list := range [][]error{all.all(), given.all()} {
		if !slices.Equal(list, []error{ErrFull}) {
			t.Errorf("given up for %v", list)
		}
	}
	// Of what was pushed, the client gets what was on its way already, and then the end.
	_ = client.SetReadDeadline(time.Now().Add(patience))
	for want := uint32(0); ; want++ {
		pusher, got, err := readRecord(client)
		if err != nil {
			t.Fatal(err)
		}
		if pusher == 1 && got == 0 {
			if want == 0 || want > n/2 {
				t.Errorf("the client got %d of %d", want, n)
			}
			break
		}
		if pusher != 0 || got != want {
			t.Fatalf("got record %d of %d, want %d", got, pusher, want)
		}
	}
	if n, err := client.Read(content); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
	waitFor(t, "nothing is queued", func() bool { return p.Queued() == 0 })
}

// TestWhoeverTakesNothingIsGivenUp holds it over TCP, where the kernels' buffers have to be full first.
func TestWhoeverTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	p, all := start(t, Limits{Queue: 1 << 10, Total: 1 << 30, WriteTimeout: 50 * time.Millisecond})
	server, client := pair(t)
	q, given := open(t, p, server)
	// It is let in whatever its size.
	q.Push(Frame{Body: make([]byte, 8<<20)})
	waitFor(t, "it is given up", func() bool { return given.all() != nil })
	q.Finish(body("end"), true, true)
	waitFor(t, "nothing is queued", func() bool { return p.Queued() == 0 })
	for _, list := range [][]error{all.all(), given.all()} {
		if !slices.Equal(list, []error{ErrStalled}) {
			t.Errorf("given up for %v", list)
		}
	}
	_ = client.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(client)
	if errors.Is(err, context.DeadlineExceeded) || bytes.Contains(rest, []byte("end")) {
		t.Errorf("something follows a frame of which a part is lost: %d bytes, %v", len(rest), err)
	}
}

// TestHowSlowIsTooSlow takes a piece at a time, by a clock that is nobody's.
func TestHowSlowIsTooSlow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pause time.Duration
		want  []error
	}{
		// 16 KiB are four pieces.
		{1200 * time.Millisecond, nil},
		{1300 * time.Millisecond, []error{ErrStalled}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, given := start(t, Limits{Queue: 1 << 20, Total: 1 << 30, WriteTimeout: 5 * time.Second})
			server, client := net.Pipe()
			defer client.Close()
			q, _ := open(t, p, server)
			go func() {
				piece := make([]byte, 4<<10)
				for {
					time.Sleep(test.pause)
					if _, err := io.ReadFull(client, piece); err != nil {
						return
					}
				}
			}()
			q.Push(Frame{Body: make([]byte, 500<<10)})
			q.Finish(Frame{Body: make([]byte, 4<<10)}, true, true)
			time.Sleep(time.Hour)
			if got := given.all(); !slices.Equal(got, test.want) {
				t.Errorf("a piece every %v: %v, want %v", test.pause, got, test.want)
			}
			if n := p.Queued(); n != 0 {
				t.Errorf("%d bytes are queued", n)
			}
		})
	}
}

func TestABrokenConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	p, all := start(t, generous)
	server, client := pair(t)
	q, given := open(t, p, server)
	if err := client.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	waitFor(t, "it is given up", func() bool {
		q.Push(body("anybody?"))
		return given.all() != nil
	})
	for _, list := range [][]error{all.all(), given.all()} {
		if !slices.Equal(list, []error{ErrBroken}) {
			t.Errorf("given up for %v", list)
		}
	}
	waitFor(t, "nothing is queued", func() bool { return p.Queued() == 0 })
}

// TestTheLargestQueueIsGivenUpForAll holds the bound of the process.
func TestTheLargestQueueIsGivenUpForAll(t *testing.T) {
	t.Parallel()
	p, all := start(t, Limits{Queue: 1 << 20, Total: 100_000, WriteTimeout: patience})
	finished, _ := openPulled(t, p)
	finished.Push(sized(50_000))
	finished.Finish(sized(1000), true, false)
	var queues []*Queue
	var given []*reasons
	for range 4 {
		q, r := openPulled(t, p)
		queues, given = append(queues, q), append(given, r)
	}
	queues[0].Push(sized(20_000))
	queues[1].Push(sized(10_500))
	queues[1].Push(sized(10_500))
	queues[2].Push(sized(8000))
	if n := p.Queued(); n != 100_000 || all.all() != nil {
		t.Fatalf("%d bytes are queued: %v", n, all.all())
	}
	queues[3].Push(sized(200))
	if n := p.Queued(); n != 79_200 {
		t.Errorf("%d bytes are queued", n)
	}
	// One that is given up and is still being sent something is no relief any more.
	if got, _ := pull(t, queues[0]); len(got) != 20_000-overhead {
		t.Errorf("pulled %d bytes", len(got))
	}
	queues[0].evict(ErrFull)
	queues[2].Push(sized(10_000))
	queues[3].Push(sized(11_000))
	for i, want := range [][]error{{ErrFull}, {ErrMemory}, {ErrMemory}, nil} {
		if got := given[i].all(); !slices.Equal(got, want) {
			t.Errorf("queue %d was given up for %v, want %v", i, got, want)
		}
	}
	if want := []error{ErrMemory, ErrFull, ErrMemory}; !slices.Equal(all.all(), want) {
		t.Errorf("given up for %v", all.all())
	}
}

func TestTheBoundOfAQueue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sizes []int
		want  []error
	}{
		"exactly full":               {[]int{600, 400}, nil},
		"one byte more":              {[]int{600, 401}, []error{ErrFull}},
		"a large one alone":          {[]int{5000}, nil},
		"a large one when half full": {[]int{200, 300, 5000}, nil},
		"and at a byte more":         {[]int{200, 301, 5000}, []error{ErrFull}},
		"one after a large one":      {[]int{5000, 100}, []error{ErrFull}},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := start(t, Limits{Queue: 1000, Total: 1 << 20, WriteTimeout: patience})
			q, given := openPulled(t, p)
			for _, size := range test.sizes {
				q.Push(sized(size))
			}
			if got := given.all(); !slices.Equal(got, test.want) {
				t.Errorf("given up for %v, want %v", got, test.want)
			}
			// At once, none is too many.
			all, given := openPulled(t, p)
			var frames []Frame
			for _, size := range test.sizes {
				frames = append(frames, sized(size))
			}
			all.Push(frames...)
			if got, _ := pull(t, all); given.all() != nil || len(got) == 0 {
				t.Errorf("%d bytes, given up for %v", len(got), given.all())
			}
		})
	}
}

func TestFinish(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{true, false} {
		for _, cut := range []bool{true, false} {
			t.Run(fmt.Sprintf("keep %v, cut %v", keep, cut), func(t *testing.T) {
				t.Parallel()
				p, _ := start(t, generous)
				server, client := net.Pipe()
				defer client.Close()
				q, _ := open(t, p, server)
				q.Push(body("written."))
				buffer := make([]byte, 100)
				if _, err := io.ReadFull(client, buffer[:1]); err != nil {
					t.Fatal(err)
				}
				q.Push(body("queued."))
				q.Finish(body("end."), keep, cut)
				q.Push(body("late"))
				q.PushFirst(body("late"))
				q.Finish(body("again"), true, true)
				want := "ritten.end."
				if keep {
					want = "ritten.queued.end."
				}
				if _, err := io.ReadFull(client, buffer[:len(want)]); err != nil || string(buffer[:len(want)]) != want {
					t.Errorf("read %q, %v, want %q", buffer[:len(want)], err, want)
				}
				waitFor(t, "nothing is queued", func() bool { return p.Queued() == 0 })
				if !cut {
					q.mu.Lock()
					closed := q.closed
					q.mu.Unlock()
					if closed {
						t.Error("the connection is closed")
					}
					q.Close()
				}
				_ = client.SetReadDeadline(time.Now().Add(patience))
				if n, err := client.Read(buffer); n > 0 || !errors.Is(err, io.EOF) {
					t.Errorf("in the end: %q, %v", buffer[:n], err)
				}
			})
		}
	}
}

// TestNothingToSayIsNoWrite finishes without a last word, as a connection does whose client has closed it.
func TestNothingToSayIsNoWrite(t *testing.T) {
	t.Parallel()
	p, given := start(t, generous)
	server, client := pair(t)
	q, _ := open(t, p, server)
	q.Finish(Frame{}, true, true)
	_ = client.SetReadDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(client); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if n := p.Queued(); n != 0 || given.all() != nil {
		t.Errorf("%d bytes are queued, given up for %v", n, given.all())
	}
}

// TestCloseWithinAWrite closes while the client reads nothing and half of a frame is on its way.
func TestCloseWithinAWrite(t *testing.T) {
	t.Parallel()
	p, given := start(t, generous)
	server, client := pair(t)
	q, _ := open(t, p, server)
	q.Push(Frame{Body: make([]byte, 8<<20)})
	q.Push(body("more"))
	waitFor(t, "it is being written", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.writing > 0
	})
	if _, err := io.ReadFull(client, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	q.Close()
	q.Close()
	if n := p.Queued(); n != 0 {
		t.Errorf("%d bytes are queued", n)
	}
	_, _ = io.Copy(io.Discard, client)
	if n := p.Queued(); n != 0 || given.all() != nil {
		t.Errorf("%d bytes are queued, given up for %v", n, given.all())
	}
}

// TestCloseAtAnyTime closes while several goroutines push and the client reads.
func TestCloseAtAnyTime(t *testing.T) {
	t.Parallel()
	p, _ := start(t, Limits{Queue: 64 << 10, Total: 200 << 10, WriteTimeout: patience})
	var tasks sync.WaitGroup
	for range 50 {
		server, client := pair(t)
		q, _ := open(t, p, server)
		for range 2 {
			tasks.Go(func() {
				for range 100 {
					q.Push(sized(overhead + rand.N(3000)))
					q.PushFirst(body("ping"))
				}
			})
		}
		tasks.Go(func() {
			_, _ = io.CopyN(io.Discard, client, rand.N[int64](300_000))
			_ = client.Close()
		})
		tasks.Go(func() {
			time.Sleep(rand.N(3 * time.Millisecond))
			if rand.N(2) == 0 {
				q.Finish(body("end"), rand.N(2) == 0, rand.N(2) == 0)
			}
			q.Close()
		})
	}
	tasks.Wait()
	if n := p.Queued(); n != 0 {
		t.Errorf("%d bytes are queued", n)
	}
	if n := len(p.queues); n != 0 {
		t.Errorf("the pool keeps %d queues", n)
	}
}

// TestStop stops a pool that has something to write, which stays unsent.
func TestStop(t *testing.T) {
	t.Parallel()
	p := New(generous, func(error) {})
	server, client := pair(t)
	q := p.Open(server, Plain, func(error) {})
	q.Push(Frame{Body: make([]byte, 8<<20)})
	if _, err := io.ReadFull(client, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	q.Push(body("late"))
	q.Close()
	if n := p.Queued(); n != 0 {
		t.Errorf("%d bytes are queued", n)
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		wake func(t *testing.T, q *Queue, cancel context.CancelFunc)
		want error
	}{
		"when it is sent": {wake: func(t *testing.T, q *Queue, _ context.CancelFunc) {
			// What was pulled is sent once the next is asked for.
			for range 2 {
				_, _ = pull(t, q)
			}
		}},
		"when it is closed":            {wake: func(_ *testing.T, q *Queue, _ context.CancelFunc) { q.Close() }},
		"when it is given up":          {wake: func(_ *testing.T, q *Queue, _ context.CancelFunc) { q.Push(sized(401)) }},
		"when it is finished":          {wake: func(_ *testing.T, q *Queue, _ context.CancelFunc) { q.Finish(Frame{}, true, false) }},
		"when it is finished at once":  {wake: func(_ *testing.T, q *Queue, _ context.CancelFunc) { q.Finish(Frame{}, false, false) }},
		"when nobody wants it anymore": {wake: func(_ *testing.T, _ *Queue, cancel context.CancelFunc) { cancel() }, want: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, _ := start(t, Limits{Queue: 1000, Total: 1 << 20, WriteTimeout: patience})
				q, _ := openPulled(t, p)
				q.Push(sized(500))
				if err := q.Room(t.Context()); err != nil {
					t.Errorf("half full: %v", err)
				}
				q.Push(sized(100))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				returned := make(chan error, 2)
				for range 2 {
					go func() { returned <- q.Room(ctx) }()
				}
				synctest.Wait()
				if len(returned) > 0 {
					t.Fatalf("there is room: %v", <-returned)
				}
				test.wake(t, q, cancel)
				synctest.Wait()
				if len(returned) != 2 {
					t.Fatal("Room waits on")
				}
				for range 2 {
					if err := <-returned; !errors.Is(err, test.want) {
						t.Errorf("Room: %v, want %v", err, test.want)
					}
				}
			})
		})
	}
}

func TestPull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, given := start(t, generous)
		q, _ := openPulled(t, p)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, more := q.Pull(ctx, []byte("what was in the buffer")); len(got) > 0 || !more || ctx.Err() == nil {
			t.Errorf("pulled %q, %v from nothing", got, more)
		}
		pulled := make(chan string)
		pulling := func() {
			got, more := q.Pull(t.Context(), nil)
			pulled <- fmt.Sprintf("%s %v", got, more)
		}
		go pulling()
		synctest.Wait()
		q.Push(body("a"))
		if got := <-pulled; got != "a true" {
			t.Errorf("pulled %q", got)
		}
		// It may be on its way yet.
		if n := p.Queued(); n != 1+overhead {
			t.Errorf("%d bytes are queued", n)
		}
		q.Push(body("c"))
		q.PushFirst(body("b"))
		if got, more := pull(t, q); got != "bc" || !more {
			t.Errorf("pulled %q, %v", got, more)
		}
		for range 3 {
			q.Push(Frame{Body: make([]byte, batch)})
		}
		q.Finish(body("end"), true, true)
		for range 3 {
			if got, more := pull(t, q); len(got) != batch || !more {
				t.Errorf("pulled %d bytes, %v", len(got), more)
			}
		}
		if got, more := pull(t, q); got != "end" || !more {
			t.Errorf("pulled %q, %v", got, more)
		}
		for range 2 {
			if got, more := pull(t, q); got != "" || more {
				t.Errorf("pulled %q, %v after the end", got, more)
			}
		}
		if n := p.Queued(); n != 0 || given.all() != nil {
			t.Errorf("%d bytes are queued, given up for %v", n, given.all())
		}

		q, _ = openPulled(t, p)
		go pulling()
		synctest.Wait()
		q.Close()
		if got := <-pulled; got != " false" {
			t.Errorf("pulled %q from a queue that was closed", got)
		}

		q, _ = openPulled(t, p)
		q.Push(body("lost"))
		q.evict(ErrMemory)
		go pulling()
		synctest.Wait()
		q.Finish(body("sorry"), false, false)
		if got := <-pulled; got != "sorry true" {
			t.Errorf("pulled %q from a queue that was given up", got)
		}
		q.Close()
		if n := p.Queued(); n != 0 {
			t.Errorf("%d bytes are queued", n)
		}
	})
}

// TestAQueueIsAList compares a queue with a list, for whatever may come.
func TestAQueueIsAList(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	p, _ := start(t, generous)
	for range 200 {
		q, _ := openPulled(t, p)
		var want, got []byte
		var waiting [][]byte
		pulled := func() {
			text, _ := pull(t, q)
			got = append(got, text...)
			for n := 0; n < min(len(text), batch) || len(waiting) > 0 && n == 0; waiting = waiting[1:] {
				if len(waiting) == 0 {
					t.Fatalf("seed %d: pulled more than there was", seed)
				}
				want, n = append(want, waiting[0]...), n+len(waiting[0])
			}
		}
		for i := range r.IntN(100) {
			content := bytes.Repeat([]byte{byte(i)}, 1+r.IntN(9000))
			switch r.IntN(5) {
			case 0:
				q.PushFirst(Frame{Body: content})
				waiting = slices.Insert(waiting, 0, content)
			case 1:
				pulled()
			default:
				q.Push(Frame{Body: content})
				waiting = append(waiting, content)
			}
		}
		for len(waiting) > 0 {
			pulled()
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: got %d bytes that are not the %d pushed", seed, len(got), len(want))
		}
		q.Close()
	}
	if n := p.Queued(); n != 0 {
		t.Errorf("%d bytes are queued", n)
	}
}

// TestAQueueThatIsNeverEmptyDoesNotGrow holds it for whoever is behind for days: a client that catches up at its own
// pace always has something to come.
func TestAQueueThatIsNeverEmptyDoesNotGrow(t *testing.T) {
	t.Parallel()
	p, _ := start(t, generous)
	q, _ := openPulled(t, p)
	f := Frame{Body: make([]byte, batch)}
	for range 10 {
		q.Push(f)
	}
	var buffer []byte
	for range 5000 {
		q.Push(f)
		if buffer, _ = q.Pull(t.Context(), buffer); len(buffer) != batch {
			t.Fatalf("pulled %d bytes", len(buffer))
		}
	}
	if n := cap(q.frames); n > 100 {
		t.Errorf("a queue of 10 frames has memory for %d", n)
	}
}

// BenchmarkShared pushes a frame that all are sent to 1,000 queues.
func BenchmarkShared(b *testing.B) {
	const queues = 1000
	p, given := start(b, Limits{Queue: 512 << 10, Total: 1 << 30, WriteTimeout: patience})
	var opened []*Queue
	for range queues {
		server, client := pair(b)
		q := p.Open(server, WebSocket, func(error) {})
		b.Cleanup(q.Close)
		opened = append(opened, q)
		go func() {
			buffer := make([]byte, 4<<10)
			for {
				if _, err := client.Read(buffer); err != nil {
					return
				}
			}
		}()
	}
	f := Frame{Op: Text, Head: []byte(`{"id":"1","type":"next","payload":`), Body: make([]byte, 400), Tail: []byte(`}`)}
	b.ReportAllocs()
	for b.Loop() {
		for _, q := range opened {
			q.Push(f)
		}
		for p.Queued() > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	b.ReportMetric(float64(b.N*queues)/b.Elapsed().Seconds(), "frames/s")
	if list := given.all(); list != nil {
		b.Errorf("given up: %v", list)
	}
}
