package relay

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/redistest"
	"chatapp.dev/services/messages/internal/store"
)

func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }

// fixture is a relay on a real database and a real Redis Cluster, with its sweeper.
type fixture struct {
	t       *testing.T
	cluster *redistest.Cluster
	client  *redis.ClusterClient
	store   *store.Store
	relay   *Relay
	notes   map[ids.ID]ids.ID // The conversation of each user with themselves.
}

func start(t *testing.T) *fixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	database, err := mysql.Open(t.Context(), mysql.Config{DSN: mysql.DSN(mysqltest.DSN(t)), MultiStatements: true}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { database.Close() })
	migrator, err := mysql.NewMigrator(database, store.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	if err := migrator.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, cluster: redistest.StartCluster(t), store: store.New(database), notes: make(map[ids.ID]ids.ID)}
	rdb, err := redisclient.Connect(f.cluster.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	f.client = rdb.(*redis.ClusterClient)
	convert := func(_ store.Epoch, e store.Event) *messagesv1.Event { return &messagesv1.Event{Seq: e.Seq} }
	f.relay = New(rdb, f.store, convert, log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- f.relay.Run(ctx) }()
	go func() { ended <- f.relay.Sweep(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

// userAt makes a user whose channel is at a node.
func (f *fixture) userAt(addr string) ids.ID {
	f.t.Helper()
	for {
		id := ids.New()
		client, err := f.client.MasterForKey(f.t.Context(), api.UserChannel(id.String()))
		if err != nil {
			f.t.Fatal(err)
		}
		if client.Options().Addr == addr {
			return id
		}
	}
}

// note stores a note that a user writes to themselves, and hands its event to the relay.
func (f *fixture) note(user ids.ID) {
	f.t.Helper()
	sent, err := f.store.Send(f.t.Context(), store.NewMessage{
		ConversationID: f.notes[user], Users: store.Pair(user, user), SenderID: user, ClientID: ids.New(), Body: "x",
		Now: time.Now().UTC(),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.notes[user] = sent.Message.ConversationID
	f.relay.Publish(f.t.Context(), sent.Epoch, sent.Events)
}

// receive returns a function that waits for the next hint on a user's channel and returns the event's number.
func (f *fixture) receive(user ids.ID) (next func() int64) {
	f.t.Helper()
	hints := f.client.SSubscribe(f.t.Context(), api.UserChannel(user.String()))
	f.t.Cleanup(func() { hints.Close() })
	if _, err := hints.Receive(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return func() int64 {
		f.t.Helper()
		ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
		defer cancel()
		message, err := hints.ReceiveMessage(ctx)
		if err != nil {
			f.t.Fatal(err)
		}
		var envelope eventsv1.Envelope
		if err := proto.Unmarshal([]byte(message.Payload), &envelope); err != nil {
			f.t.Fatal(err)
		}
		if ids.ID(envelope.GetUserId()) != user {
			f.t.Fatalf("a hint is for %x", envelope.GetUserId())
		}
		return envelope.GetEvent().GetSeq()
	}
}

// wantAllPublished waits until no event has its flag.
func (f *fixture) wantAllPublished() {
	f.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, err := f.store.UnrelayedEvents(f.t.Context(), time.Now().Add(time.Hour), 10_000)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%d events keep their flag", len(left))
		}
	}
}

func (f *fixture) signal(sig syscall.Signal, addrs ...string) {
	f.t.Helper()
	for _, addr := range addrs {
		if err := syscall.Kill(f.cluster.Pid(addr), sig); err != nil {
			f.t.Fatal(err)
		}
	}
}

func TestEventsGoToTheShardsOfTheirUsers(t *testing.T) {
	t.Parallel()
	f := start(t)
	for _, addr := range f.cluster.Nodes()[:3] {
		user := f.userAt(addr)
		next := f.receive(user)
		for range 50 {
			f.note(user)
		}
		var got []int64
		for range 50 {
			got = append(got, next())
		}
		// Batches overtake each other only between lanes.
		if !slices.IsSorted(got) || got[0] != 1 || got[49] != 50 {
			t.Errorf("the hints are of the events %v", got)
		}
	}
	f.wantAllPublished()
}

// Without its replica, so that nothing replaces it.
func TestAPrimaryThatHangsHoldsUpNoOtherUsers(t *testing.T) {
	t.Parallel()
	f := start(t)
	nodes := f.cluster.Nodes()
	stuck, free := f.userAt(nodes[0]), f.userAt(nodes[1])
	next := f.receive(free)
	f.signal(syscall.SIGSTOP, nodes[0], nodes[3])
	// Each round trip to the stuck primary takes seconds, until it is given up.
	deadline := time.Now().Add(time.Minute)
	for seq := int64(1); seq <= 100; seq++ {
		if time.Now().After(deadline) {
			t.Fatalf("the other user was held up: %d hints in a minute", seq-1)
		}
		f.note(stuck)
		f.note(free)
		// A hint may be repeated by the sweeper when the machine is slow.
		for got := next(); got != seq; got = next() {
			if got > seq {
				t.Fatalf("the hint after %d is of event %d", seq-1, got)
			}
		}
	}
	f.signal(syscall.SIGCONT, nodes[0], nodes[3])
	f.wantAllPublished()
}

func TestEventsOfAKilledPrimaryArePublishedOnceItIsReplaced(t *testing.T) {
	t.Parallel()
	f := start(t)
	killed := f.cluster.Nodes()[2]
	user := f.userAt(killed)
	f.note(user)
	f.wantAllPublished()
	f.cluster.Kill(killed)
	for range 300 { // More than a batch.
		f.note(user)
	}
	f.wantAllPublished()
}
