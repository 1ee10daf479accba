package hub

import (
	"context"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/redistest"
)

// clusterWorld is a world on a real Redis Cluster.
type clusterWorld struct {
	*world

	cluster *redistest.Cluster
	// publisher is the relay's client; the hub has one of its own.
	publisher *redis.ClusterClient
	// nodes has a client of each node.
	nodes map[string]*redis.Client
}

// connect returns a client as services make it.
func connect(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	client, err := redisclient.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("close the Redis client: %v", err)
		}
	})
	return client
}

// withCluster starts a cluster and a hub that runs until the test's end.
func withCluster(t testing.TB, cfg Config) *clusterWorld {
	t.Helper()
	cluster := redistest.StartCluster(t)
	w := &clusterWorld{
		world:     newWorld(t, cfg, connect(t, cluster.URL)),
		cluster:   cluster,
		publisher: connect(t, cluster.URL).(*redis.ClusterClient),
		nodes:     make(map[string]*redis.Client),
	}
	for _, addr := range cluster.Nodes() {
		w.nodes[addr] = newClient(t, addr)
	}
	t.Cleanup(w.run())
	return w
}

// publish sends a hint as the relay does, and says whether Redis took it.
func (w *clusterWorld) publish(env *eventsv1.Envelope) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	channel, payload := encode(w, env)
	return w.publisher.SPublish(ctx, channel, payload).Err() == nil
}

// owner returns the address of the primary that the publisher takes a user's hints to.
func (w *clusterWorld) owner(id identity.Identity) string {
	w.Helper()
	client, err := w.publisher.MasterForKey(context.Background(), channelOf(id))
	if err != nil {
		w.Fatal(err)
	}
	return client.Options().Addr
}

// subscribers returns how many connections receive the user's channel from a node, and none if the node does not
// answer.
func (w *clusterWorld) subscribers(addr string, id identity.Identity) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return w.nodes[addr].PubSubShardNumSub(ctx, channelOf(id)).Val()[channelOf(id)]
}

// atHome says whether the channels of users are received from where they are published.
func (w *clusterWorld) atHome(users []identity.Identity) bool {
	return !slices.ContainsFunc(users, func(id identity.Identity) bool { return w.subscribers(w.owner(id), id) != 1 })
}

// userAt makes a user whose channel is at one of the given primaries.
func (w *clusterWorld) userAt(primaries ...string) identity.Identity {
	for {
		if id := w.user(); slices.Contains(primaries, w.owner(id)) {
			return id
		}
	}
}

// flow is messages that flow to users, each followed by a subscription.
type flow struct {
	*clusterWorld

	users []identity.Identity
	// take takes events of each user's subscription, and taken is how many it took.
	take  []func(n int) []int64
	taken []int64

	stop    context.CancelFunc
	flowing sync.WaitGroup
}

// flowTo begins to send a message to each user every few milliseconds.
func (w *clusterWorld) flowTo(users []identity.Identity) *flow {
	ctx, stop := context.WithCancel(context.Background())
	f := &flow{clusterWorld: w, users: users, taken: make([]int64, len(users)), stop: stop}
	for _, id := range users {
		s := w.subscribe(id, "")
		f.take = append(f.take, func(n int) []int64 { return w.take(s, n) })
		// Each by itself: those whose primary is gone wait.
		f.flowing.Go(func() {
			for ctx.Err() == nil {
				w.publish(w.messages.commit(id.UserID, "hello"))
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	w.Cleanup(func() {
		stop()
		f.flowing.Wait()
	})
	return f
}

// takeUntil takes what a user gets up to an event, and checks that it is everything, once and in order.
func (f *flow) takeUntil(i int, seq int64) {
	f.Helper()
	want := span(f.taken[i]+1, seq)
	if got := f.take[i](len(want)); !slices.Equal(got, want) {
		f.Fatalf("got the events %v, want %v", got, want)
	}
	f.taken[i] = seq
}

// progress waits until every user gets something that is sent from now on.
func (f *flow) progress() {
	f.Helper()
	for i, id := range f.users {
		f.takeUntil(i, f.messages.head(id.UserID)+1)
	}
}

// end ends the flow with a message whose hint Redis takes, and waits until everybody has got everything.
func (f *flow) end() {
	f.Helper()
	f.stop()
	f.flowing.Wait()
	for i, id := range f.users {
		last := f.messages.commit(id.UserID, "the last one")
		eventually(f, "the last hint is taken", func() bool { return f.publish(last) })
		f.takeUntil(i, f.messages.head(id.UserID))
	}
}

func TestClusterChannelsAreReceivedFromTheirPrimaries(t *testing.T) {
	t.Parallel()
	w := withCluster(t, config())
	primaries := w.cluster.Nodes()[:3]
	var users []identity.Identity
	for i := range 30 {
		users = append(users, w.userAt(primaries[i%3]))
	}
	f := w.flowTo(users)
	eventually(t, "every channel is received from where it belongs", func() bool { return w.atHome(users) })
	f.progress()
	f.end()
	if n := w.messages.callsOf("ReadLog"); n != 0 {
		t.Errorf("the log was read %d times although every hint came", n)
	}
	for _, addr := range primaries {
		list, err := w.nodes[addr].Do(t.Context(), "client", "list", "type", "pubsub").Text()
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(list, "ssub="); n != 1 {
			t.Errorf("%d connections receive from %s, want 1:\n%s", n, addr, list)
		}
	}
	w.hub.Close()
	eventually(t, "no channel is left", func() bool {
		var left int64
		for _, addr := range primaries {
			for _, id := range users {
				left += w.subscribers(addr, id)
			}
		}
		return left == 0
	})
}

func TestPrimaryLostWhileMessagesFlow(t *testing.T) {
	losses := map[string]struct {
		lose, back func(w *clusterWorld, addr string)
	}{
		"killed": {
			lose: func(w *clusterWorld, addr string) { w.cluster.Kill(addr) },
			back: func(w *clusterWorld, addr string) { w.cluster.Restart(addr) },
		},
		// Its connections stay open, and nothing comes through them.
		"suspended": {
			lose: func(w *clusterWorld, addr string) { w.suspend(addr, syscall.SIGSTOP) },
			back: func(w *clusterWorld, addr string) { w.suspend(addr, syscall.SIGCONT) },
		},
	}
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := withCluster(t, config())
			nodes := w.cluster.Nodes()
			lost, replica, others := nodes[1], nodes[4], []string{nodes[0], nodes[2]}
			hit := []identity.Identity{w.userAt(lost), w.userAt(lost), w.userAt(lost)}
			spared := []identity.Identity{w.userAt(others...), w.userAt(others...)}
			atLost, elsewhere := w.flowTo(hit), w.flowTo(spared)
			atLost.progress()
			elsewhere.progress()

			loss.lose(w, lost)
			before := w.messages.callsOf("ReadLog")
			elsewhere.progress()
			if n := w.messages.callsOf("ReadLog"); n != before {
				t.Errorf("those at other primaries had to read the log, %d times", n-before)
			}
			atLost.progress()
			eventually(t, "the channels are received from the promoted replica", func() bool {
				return !slices.ContainsFunc(hit, func(id identity.Identity) bool { return w.subscribers(replica, id) != 1 })
			})
			atLost.progress()
			loss.back(w, lost)
			atLost.progress()
			elsewhere.progress()

			// And back again, once it is a replica in step.
			eventually(t, "the lost primary is a replica", func() bool {
				return strings.Contains(w.nodes[lost].Info(t.Context(), "replication").Val(), "master_link_status:up")
			})
			loss.lose(w, replica)
			atLost.progress()
			eventually(t, "the channels are received from where they were at first", func() bool {
				return !slices.ContainsFunc(hit, func(id identity.Identity) bool { return w.subscribers(lost, id) != 1 })
			})
			loss.back(w, replica)
			atLost.end()
			elsewhere.end()
		})
	}
}

// suspend sends a node a signal.
func (w *clusterWorld) suspend(addr string, sig syscall.Signal) {
	w.Helper()
	if err := syscall.Kill(w.cluster.Pid(addr), sig); err != nil {
		w.Fatal(err)
	}
}

func TestChannelFollowsItsSlotWhileMessagesFlow(t *testing.T) {
	t.Parallel()
	w := withCluster(t, config())
	nodes := w.cluster.Nodes()
	moving, staying := w.userAt(nodes[0]), w.userAt(nodes[0])
	f := w.flowTo([]identity.Identity{moving, staying})
	f.progress()
	for _, to := range []string{nodes[2], nodes[1], nodes[0]} {
		w.cluster.Migrate(channelOf(moving), to)
		eventually(t, "the channel is received from where its slot is", func() bool {
			held := 0
			for _, addr := range nodes[:3] {
				held += int(w.subscribers(addr, moving))
			}
			return held == 1 && w.subscribers(to, moving) == 1
		})
		f.progress()
	}
	f.end()
}

func TestNodeThatRefusesAChannelGoesOnSendingTheOthers(t *testing.T) {
	t.Parallel()
	w := withCluster(t, config())
	node := w.cluster.Nodes()[0]
	refused, other := w.userAt(node), w.userAt(node)
	f := w.flowTo([]identity.Identity{other})
	f.progress()
	slot := w.nodes[node].ClusterKeySlot(t.Context(), channelOf(refused)).Val()
	if err := w.nodes[node].ClusterDelSlots(t.Context(), int(slot)).Err(); err != nil {
		t.Fatal(err)
	}
	s := w.subscribe(refused, "") // It starts without Redis.
	before := w.messages.callsOf("ReadLog")
	for range 20 {
		f.progress()
		time.Sleep(50 * time.Millisecond) // Meanwhile it is asked for in vain.
	}
	if n := w.messages.callsOf("ReadLog"); n != before {
		t.Errorf("the other channel was interrupted: its log was read %d times", n-before)
	}
	w.commit(refused.UserID, 1)
	if err := w.nodes[node].ClusterAddSlots(t.Context(), int(slot)).Err(); err != nil {
		t.Fatal(err)
	}
	w.wantNext(s, 1) // Found by the comparison that the confirmation causes.
	f.end()
}

func TestClusterThatIsAwayIsCoveredByComparingHeads(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.HeadInterval = 20 * time.Millisecond
	cfg.ConfirmWait = 10 * time.Millisecond
	w := newWorld(t, cfg, connect(t, "redis+cluster://127.0.0.1:1,127.0.0.1:2"))
	defer w.run()()
	for range 20 {
		id := w.user()
		s := w.subscribe(id, "")
		w.commit(id.UserID, 1)
		w.wantNext(s, 1)
		s.Close()
	}
}

func TestEverySubscriptionSeesExactlyWhatFollowsItsCursorWhileSlotsMigrate(t *testing.T) {
	t.Parallel()
	cfg := chaoticConfig()
	cfg.ConfirmWait = 50 * time.Millisecond
	w := withCluster(t, cfg)
	c := newChaos(w.world, uint64(time.Now().UnixNano()), 4, 300, 10*time.Millisecond, func(env *eventsv1.Envelope) {
		w.publish(env)
	})
	primaries := w.cluster.Nodes()[:3]
	homes := make([]int, len(c.users))
	for i, id := range c.users {
		homes[i] = slices.Index(primaries, w.owner(id))
	}
	migrations, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; migrations.Err() == nil; n++ {
			i := n % len(homes)
			homes[i] = (homes[i] + 1) % len(primaries)
			w.cluster.Migrate(channelOf(c.users[i]), primaries[homes[i]])
			time.Sleep(100 * time.Millisecond)
		}
	}()
	if err := c.run(4); err != nil {
		t.Error(err)
	}
	stop()
	<-done
	if n := len(w.hub.allFeeds()); n != 0 {
		t.Errorf("%d feeds are left", n)
	}
}

func TestSentinelsMasterIsLostWhileMessagesFlow(t *testing.T) {
	for name, lose := range map[string]func(*redistest.Sentinel){
		"killed": (*redistest.Sentinel).KillMaster,
		// The hub's connection to it stays open and alive, but nothing is published there any more.
		"cut off": (*redistest.Sentinel).Isolate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := redistest.StartSentinel(t)
			w := newWorld(t, config(), connect(t, servers.URL))
			t.Cleanup(w.run())
			publisher, promoted := connect(t, servers.URL), newClient(t, servers.Replica)
			id := w.user()
			s := w.subscribe(id, "")
			publish := func(body string) bool {
				channel, payload := encode(w, w.messages.commit(id.UserID, body))
				return publisher.Publish(t.Context(), channel, payload).Err() == nil
			}
			if !publish("before") {
				t.Fatal("Redis does not take a hint")
			}
			w.wantNext(s, 1)
			lose(servers)
			eventually(t, "the channel is received from the promoted replica", func() bool {
				publish("meanwhile")
				return promoted.PubSubNumSub(t.Context(), channelOf(id)).Val()[channelOf(id)] == 1
			})
			eventually(t, "a hint is taken", func() bool { return publish("after") })
			w.wantNext(s, span(2, w.messages.head(id.UserID))...)
		})
	}
}
