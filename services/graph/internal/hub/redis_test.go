package hub

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/redistest"
)

// redisWorld is a world on a real Redis.
type redisWorld struct {
	*world

	server *redistest.Server
	// publisher is the relay's client; the hub has one of its own.
	publisher *redis.Client
}

func newClient(t testing.TB, addr string) *redis.Client {
	// A pool this large never refuses to dial because of earlier failures.
	c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1, PoolSize: 10_000})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the Redis client: %v", err)
		}
	})
	return c
}

// withRedis starts a Redis and a hub that runs until the test's end.
func withRedis(t testing.TB, cfg Config) *redisWorld {
	t.Helper()
	server := redistest.Start(t)
	w := &redisWorld{
		world:     newWorld(t, cfg, newClient(t, server.Addr)),
		server:    server,
		publisher: newClient(t, server.Addr),
	}
	t.Cleanup(w.run())
	return w
}

// publish sends a hint as the relay does. Redis may be down.
func (w *redisWorld) publish(env *eventsv1.Envelope) {
	channel, payload := encode(w, env)
	_ = w.publisher.Publish(context.Background(), channel, payload).Err()
}

// eventually waits until a condition holds; it is a failure if that takes absurdly long.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
	}
}

// channels returns how many channels Redis sends to anybody.
func (w *redisWorld) channels() int {
	w.Helper()
	channels, err := w.publisher.PubSubChannels(context.Background(), "*").Result()
	if err != nil {
		w.Fatal(err)
	}
	return len(channels)
}

// subscribers returns how many connections receive the user's channel.
func (w *redisWorld) subscribers(id identity.Identity) int64 {
	w.Helper()
	numbers, err := w.publisher.PubSubNumSub(context.Background(), channelOf(id)).Result()
	if err != nil {
		w.Fatal(err)
	}
	return numbers[channelOf(id)]
}

func TestHintsAreReceivedFromRedis(t *testing.T) {
	w := withRedis(t, config())
	id := w.user()
	a, b := w.subscribe(id, ""), w.subscribe(id, "")
	for seq := range int64(100) {
		w.publish(w.messages.commit(id.UserID, "hello"))
		w.wantNext(a, seq+1)
		w.wantNext(b, seq+1)
	}
	if n := w.messages.callsOf("ReadLog"); n != 0 {
		t.Errorf("the log was read %d times although every hint came", n)
	}
}

func TestOneRedisConnectionAndOneChannelAUser(t *testing.T) {
	w := withRedis(t, config())
	for range 10 {
		id := w.user()
		for range 5 {
			w.subscribe(id, "")
		}
		if n := w.subscribers(id); n != 1 {
			t.Errorf("the user's channel has %d subscribers, want 1", n)
		}
	}
	if n := w.channels(); n != 10 {
		t.Errorf("%d channels are subscribed for 10 users", n)
	}
}

func TestChannelThatIsReopenedAtOnceIsReceived(t *testing.T) {
	w := withRedis(t, config())
	id := w.user()
	s := w.subscribe(id, "")
	for seq := range int64(500) {
		s.Close()
		s = w.subscribe(id, "")
		w.publish(w.messages.commit(id.UserID, "hello"))
		w.wantNext(s, seq+1)
	}
	s.Close()
	eventually(t, "no channel is subscribed", func() bool { return w.channels() == 0 })
}

func TestNothingIsLeftOfFiveThousandSubscriptions(t *testing.T) {
	w := withRedis(t, config())
	keeper := w.user()
	kept := w.subscribe(keeper, "")
	eventually(t, "the kept channel is subscribed", func() bool { return w.subscribers(keeper) == 1 })
	before := runtime.NumGoroutine()

	users := make([]identity.Identity, 500)
	for i := range users {
		users[i] = w.user()
	}
	var clients sync.WaitGroup
	for client := range 50 {
		clients.Go(func() {
			for i := range 100 {
				s, err := w.open(context.Background(), users[(client*7+i*13)%len(users)], "")
				if err != nil {
					t.Errorf("Subscribe: %v", err)
					return
				}
				s.Close()
			}
		})
	}
	clients.Wait()
	if n := len(w.hub.allFeeds()); n != 1 {
		t.Errorf("%d feeds are left, want that of the open subscription", n)
	}
	eventually(t, "one channel is subscribed", func() bool { return w.channels() == 1 })
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	w.publish(w.messages.commit(keeper.UserID, "hello"))
	w.wantNext(kept, 1)
}

func TestOpenSubscriptionsCostNoGoroutine(t *testing.T) {
	w := withRedis(t, config())
	w.subscribe(w.user(), "")
	before := runtime.NumGoroutine()
	for range 300 {
		id := w.user()
		w.subscribe(id, "")
		w.subscribe(id, "")
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

func TestReconnectionFindsAtOnceWhatWasSentMeanwhile(t *testing.T) {
	w := withRedis(t, config())
	ids := make([]identity.Identity, 20)
	subs := make([]*reader, len(ids))
	for i := range ids {
		ids[i] = w.user()
		subs[i] = w.subscribe(ids[i], "")
	}
	for round := range int64(3) {
		w.server.Stop()
		for _, id := range ids {
			w.publish(w.messages.commit(id.UserID, "while Redis is down"))
		}
		w.server.Restart()
		for i, s := range subs {
			w.wantNext(s, 2*round+1)
			eventually(t, "the channel is subscribed again", func() bool { return w.subscribers(ids[i]) == 1 })
			w.publish(w.messages.commit(ids[i].UserID, "now it is back"))
			w.wantNext(s, 2*round+2)
		}
	}
}

func TestRedisDownIsCoveredByComparingHeads(t *testing.T) {
	cfg := config()
	cfg.HeadInterval = 20 * time.Millisecond
	cfg.ConfirmWait = 10 * time.Millisecond
	w := withRedis(t, cfg)
	early := w.user()
	s := w.subscribe(early, "")
	w.server.Stop()
	late := w.user()
	opened := w.subscribe(late, "")
	for seq := range int64(10) {
		w.publish(w.messages.commit(early.UserID, "hello"))
		w.wantNext(s, seq+1)
		w.publish(w.messages.commit(late.UserID, "hello"))
		w.wantNext(opened, seq+1)
	}
	w.server.Restart()
	eventually(t, "the channels are subscribed", func() bool { return w.subscribers(early)+w.subscribers(late) == 2 })
}

func TestRedisThatNeverAnswersHoldsUpNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // Connections wait in its backlog.
	cfg := config()
	cfg.HeadInterval = 20 * time.Millisecond
	cfg.ConfirmWait = 10 * time.Millisecond
	addr := listener.Addr().String()
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ReadTimeout: 50 * time.Millisecond})
	defer rdb.Close()
	w := newWorld(t, cfg, rdb)
	defer w.run()()
	for range 20 {
		id := w.user()
		s := w.subscribe(id, "")
		w.commit(id.UserID, 1)
		w.wantNext(s, 1)
		s.Close()
	}
}

func TestConnectionThatFallsSilentIsReplaced(t *testing.T) {
	server := redistest.Start(t)
	proxy := newProxy(t, server.Addr)
	w := &redisWorld{world: newWorld(t, config(), newClient(t, proxy.addr())), publisher: newClient(t, server.Addr)}
	bus := w.hub.bus.(*link)
	bus.pingInterval, bus.silence = 50*time.Millisecond, 200*time.Millisecond
	t.Cleanup(w.run())
	id := w.user()
	s := w.subscribe(id, "")
	for seq := range int64(3) {
		proxy.freeze()
		w.publish(w.messages.commit(id.UserID, "into a dead connection"))
		w.wantNext(s, seq+1) // Found by the comparison that the new connection causes.
	}
}

// proxy passes on connections to Redis, until it freezes them: they stay open and nothing comes through any more.
type proxy struct {
	listener net.Listener

	mu    sync.Mutex
	pairs []*pair
}

// pair is a connection through the proxy.
type pair struct {
	client, server net.Conn

	mu     sync.Mutex
	frozen bool
}

func newProxy(t *testing.T, target string) *proxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener}
	var tasks sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for _, c := range p.pairs {
			c.client.Close()
			c.server.Close()
		}
		p.mu.Unlock()
		tasks.Wait()
	})
	tasks.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			c := &pair{client: client, server: server}
			p.mu.Lock()
			p.pairs = append(p.pairs, c)
			p.mu.Unlock()
			tasks.Go(func() { c.pass(server, client) })
			tasks.Go(func() { c.pass(client, server) })
		}
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// freeze stops what comes through the connections that are open now.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.pairs {
		c.mu.Lock()
		c.frozen = true
		c.mu.Unlock()
	}
}

// pass copies bytes, or swallows them.
func (c *pair) pass(to io.Writer, from io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		frozen := c.frozen
		c.mu.Unlock()
		if frozen {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestEverySubscriptionSeesExactlyWhatFollowsItsCursorWhileRedisRestarts(t *testing.T) {
	cfg := chaoticConfig()
	cfg.ConfirmWait = 50 * time.Millisecond
	w := withRedis(t, cfg)
	restarts, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for restarts.Err() == nil {
			time.Sleep(300 * time.Millisecond)
			w.server.Stop()
			time.Sleep(200 * time.Millisecond)
			w.server.Restart()
		}
	}()
	c := newChaos(w.world, uint64(time.Now().UnixNano()), 4, 300, 10*time.Millisecond, w.publish)
	if err := c.run(4); err != nil {
		t.Error(err)
	}
	stop()
	<-done
	if n := len(w.hub.allFeeds()); n != 0 {
		t.Errorf("%d feeds are left", n)
	}
	eventually(t, "no channel is subscribed", func() bool { return w.channels() == 0 })
}
