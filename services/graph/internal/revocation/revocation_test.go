package revocation

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"chatapp.dev/api"
	eventsv1 "chatapp.dev/api/gen/chatapp/events/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/redistest"
)

// silent is a logger for go-redis: that Redis is down is the tests' own doing.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	goleak.VerifyTestMain(m)
}

const (
	// patience bounds waits that a failure would make endless.
	patience = 30 * time.Second
	// seldom is an interval at which no poll but the first comes to a test's help.
	seldom = maxPollInterval
)

// noRedis is where no Redis is.
const noRedis = "127.0.0.1:1"

// fakeUsers is the service users, as far as it lists revocations: a page a call, of two sessions at most.
type fakeUsers struct {
	usersv1.UsersServiceClient

	mu      sync.Mutex
	revoked []*usersv1.RevokedSession
	// fail has the errors of the next calls.
	fail []error
	// asked has the places from which pages were asked for; -1 is the beginning.
	asked []int64
}

// ListRevocations implements usersv1.UsersServiceClient. Its places are numbers of sessions, and later reading begins one
// session before the end.
func (f *fakeUsers) ListRevocations(
	_ context.Context, req *usersv1.ListRevocationsRequest, _ ...grpc.CallOption,
) (*usersv1.ListRevocationsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := int64(-1)
	if req.GetAfter() != nil {
		from = req.GetAfter().GetRevokedAtUs()
	}
	f.asked = append(f.asked, from)
	if len(f.fail) > 0 {
		err := f.fail[0]
		f.fail = f.fail[1:]
		if err != nil {
			return nil, err
		}
	}
	rest := f.revoked[max(0, from):]
	page := rest[:min(2, len(rest))]
	end := max(0, from) + int64(len(page))
	more := len(rest) > len(page)
	if !more {
		end = max(0, end-1)
	}
	return &usersv1.ListRevocationsResponse{
		Sessions:    slices.Clone(page),
		Next:        &usersv1.RevocationPosition{RevokedAtUs: end, Id: make([]byte, ids.Size)},
		HasNextPage: more,
	}, nil
}

// revoke adds sessions to the list.
func (f *fakeUsers) revoke(sessions ...*usersv1.RevokedSession) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked = append(f.revoked, sessions...)
}

// failNext makes the next calls fail with errors; nil is for one that does not.
func (f *fakeUsers) failNext(err ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// places returns from where pages were asked for since the last time.
func (f *fakeUsers) places() []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// world is a list and what it depends on.
type world struct {
	*List
	t     *testing.T
	users *fakeUsers

	mu    sync.Mutex
	heard map[ids.ID]int
}

// newWorld makes a list on a Redis, which does not run yet.
func newWorld(t *testing.T, addr string, interval time.Duration) *world {
	t.Helper()
	return newWorldOn(t, "redis://"+addr+"/0", interval)
}

func newWorldOn(t *testing.T, url string, interval time.Duration) *world {
	t.Helper()
	rdb, err := redisclient.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	users := &fakeUsers{}
	cfg := Config{PollInterval: interval}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	w := &world{
		List:  New(cfg, rdb, users, slog.New(slog.DiscardHandler)),
		t:     t,
		users: users,
		heard: map[ids.ID]int{},
	}
	w.OnRevoke(func(session ids.ID) {
		if !w.Revoked(session) {
			t.Errorf("session %v is told of before it is refused", session)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.heard[session]++
	})
	return w
}

// run runs the list until the test ends.
func (w *world) run() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			w.t.Error("Run does not end")
		}
	})
}

// await waits until a session is refused and told of.
func (w *world) await(what string, session *usersv1.RevokedSession) {
	w.t.Helper()
	eventually(w.t, "a session is refused that was "+what, func() bool { return w.told(session) > 0 })
}

// told returns how often a session was told of.
func (w *world) told(session *usersv1.RevokedSession) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard[ids.ID(session.GetId())]
}

// listening waits until Redis sends to the list.
func (w *world) listening(addr string) *redis.Client {
	w.t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	w.t.Cleanup(func() { _ = rdb.Close() })
	eventually(w.t, "the list has subscribed", func() bool {
		numbers, err := rdb.PubSubNumSub(context.Background(), api.RevocationChannel).Result()
		return err == nil && numbers[api.RevocationChannel] > 0
	})
	return rdb
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
	}
}

func session() *usersv1.RevokedSession { return sessionFor(time.Hour) }

func sessionFor(left time.Duration) *usersv1.RevokedSession {
	return &usersv1.RevokedSession{Id: ids.New().Bytes(), TokensEndAtMs: time.Now().Add(left).UnixMilli()}
}

func publish(t *testing.T, rdb redis.UniversalClient, sessions ...*usersv1.RevokedSession) {
	t.Helper()
	payload, err := proto.Marshal(&eventsv1.SessionsRevoked{Sessions: sessions})
	if err != nil {
		t.Fatal(err)
	}
	if err := rdb.Publish(t.Context(), api.RevocationChannel, payload).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatRedisTellsIsKnownAtOnceAndToldOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := newWorld(t, server.Addr, seldom)
	w.run()
	rdb := w.listening(server.Addr)
	first, second, other := session(), session(), session()
	publish(t, rdb, first, second)
	publish(t, rdb, first)
	w.await("published", first)
	w.await("published", second)
	// The list has it, too, and whoever signed out here.
	w.users.revoke(first, second)
	if err := w.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Revoke(ids.ID(first.GetId()), time.UnixMilli(first.GetTokensEndAtMs()))
	for _, session := range []*usersv1.RevokedSession{first, second} {
		if n := w.told(session); n != 1 {
			t.Errorf("a session is told of %d times, want once", n)
		}
	}
	if w.Revoked(ids.ID(other.GetId())) {
		t.Error("a session is refused that nobody has revoked")
	}
}

func TestWithoutRedisRevocationsAreFoundByAsking(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noRedis, 20*time.Millisecond)
	w.run()
	for range 3 {
		s := session()
		w.users.revoke(s)
		w.await("listed", s)
	}
}

func TestWhatRedisDidNotTellWhileItWasAwayIsAskedForWhenItIsBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := newWorld(t, server.Addr, seldom)
	w.run()
	w.listening(server.Addr)
	for range 2 {
		server.Stop()
		missed := session()
		w.users.revoke(missed)
		server.Restart()
		w.await("revoked while Redis was away", missed)
	}
	heard := session()
	publish(t, w.listening(server.Addr), heard)
	w.await("published after Redis' return", heard)
}

func TestEveryNodeOfAClusterTellsAndOneThatDiesIsReplaced(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	w := newWorldOn(t, cluster.URL, seldom)
	w.run()
	// listener returns the node that sends to the list.
	listener := func() (found string) {
		eventually(t, "the list has subscribed", func() bool {
			for _, addr := range cluster.Nodes() {
				rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
				numbers, err := rdb.PubSubNumSub(t.Context(), api.RevocationChannel).Result()
				_ = rdb.Close()
				if err == nil && numbers[api.RevocationChannel] > 0 {
					found = addr
					return true
				}
			}
			return false
		})
		return found
	}
	publisher, err := redisclient.Connect(cluster.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	listener()
	for range 20 {
		s := session()
		publish(t, publisher, s)
		w.await("published", s)
	}
	for _, addr := range cluster.Nodes() {
		node := redis.NewClient(&redis.Options{Addr: addr})
		s := session()
		publish(t, node, s)
		w.await("published at "+addr, s)
		_ = node.Close()
	}
	dead := listener()
	missed := session()
	w.users.revoke(missed)
	cluster.Kill(dead)
	w.await("revoked as a node died", missed)
	if next := listener(); next == dead {
		t.Errorf("a dead node is said to send")
	}
}

func TestWhatCannotBeReadIsAskedFor(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := newWorld(t, server.Addr, seldom)
	w.run()
	rdb := w.listening(server.Addr)
	for _, payload := range []string{"", "garbage", "\xff"} {
		s := session()
		w.users.revoke(s)
		if err := rdb.Publish(t.Context(), api.RevocationChannel, payload).Err(); err != nil {
			t.Fatal(err)
		}
		w.await("told of in an unknown way", s)
	}
	// A session without an id is no reason not to hear of the next.
	s := session()
	publish(t, rdb, &usersv1.RevokedSession{Id: []byte("short"), TokensEndAtMs: s.GetTokensEndAtMs()}, s)
	w.await("told of behind one without an id", s)
}

// A Redis that takes connections and says nothing looks like one of which nothing is new.
func TestARedisThatIsSilentIsLeft(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var taken sync.WaitGroup
	connections := make(chan struct{}, 100)
	taken.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			select {
			case connections <- struct{}{}:
			default:
			}
		}
	})
	defer taken.Wait()
	defer listener.Close()
	w := newWorld(t, listener.Addr().String(), 20*time.Millisecond)
	w.bus.pingInterval, w.bus.silence = 10*time.Millisecond, 50*time.Millisecond
	w.run()
	for range 2 {
		select {
		case <-connections:
		case <-time.After(patience):
			t.Fatal("the silent Redis is trusted")
		}
	}
	s := session()
	w.users.revoke(s)
	w.await("revoked meanwhile", s)
}

func TestLoadReadsEveryPageAndPollsReadOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noRedis, seldom)
	all := []*usersv1.RevokedSession{session(), session(), session(), session(), session()}
	w.users.revoke(all...)
	w.Load(t.Context())
	for i, s := range all {
		if w.told(s) != 1 {
			t.Errorf("session %d of the list is not known after the start", i)
		}
	}
	next := session()
	w.users.revoke(next)
	if err := w.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.told(next) != 1 {
		t.Error("what came since is not known")
	}
	if got, want := w.users.places(), []int64{-1, 2, 4, 4}; !slices.Equal(got, want) {
		t.Errorf("pages were asked for from %v, want %v", got, want)
	}
}

func TestAReadThatFailsHalfwayBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noRedis, seldom)
	w.users.revoke(session(), session(), session())
	w.users.failNext(nil, errors.New("gone"))
	if err := w.read(t.Context()); err == nil {
		t.Error("the read has not failed")
	}
	if err := w.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := w.users.places(), []int64{-1, 2, -1, 2}; !slices.Equal(got, want) {
		t.Errorf("pages were asked for from %v, want %v", got, want)
	}
}

func TestAStartWithoutUsersIsMadeUpForSoon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noRedis, seldom)
	away := errs.New(errs.Unavailable, "not available")
	w.users.failNext(away, away)
	s := session()
	w.users.revoke(s)
	w.Load(t.Context())
	if w.told(s) != 0 {
		t.Fatal("the start did not fail")
	}
	w.run()
	w.await("revoked before the start", s)
}

func TestSessionsAreForgottenOnceTheirTokensHaveEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noRedis, seldom)
	ended, leaving, staying := sessionFor(-2*tokenGrace), sessionFor(time.Second), session()
	w.revokeAll([]*usersv1.RevokedSession{ended, leaving, staying})
	if w.told(ended) != 0 || w.Revoked(ids.ID(ended.GetId())) {
		t.Error("a session is kept whose tokens have ended")
	}
	// Of two ends the later one counts, whoever tells it first.
	w.revokeAll([]*usersv1.RevokedSession{
		{Id: staying.GetId(), TokensEndAtMs: time.Now().UnixMilli()},
		{Id: leaving.GetId(), TokensEndAtMs: time.Now().UnixMilli()},
	})
	w.forgetEnded(time.Now().Add(tokenGrace))
	if !w.Revoked(ids.ID(leaving.GetId())) {
		t.Error("a session is forgotten although clocks may differ")
	}
	w.forgetEnded(time.Now().Add(2 * tokenGrace))
	if w.Revoked(ids.ID(leaving.GetId())) || !w.Revoked(ids.ID(staying.GetId())) {
		t.Errorf("after the first session's end, %d are known", len(w.tokensEnd))
	}
	if n, age := w.known(); n != 1 || age < 0 {
		t.Errorf("%d sessions are observed, read %v ago", n, age)
	}
}

func TestTheVerifierRefusesTokensOfRevokedSessionsAlone(t *testing.T) {
	t.Parallel()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner([]ed25519.PrivateKey{key})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, noRedis, seldom)
	v := NewVerifier(identity.NewVerifier(signer.Fetch), w.List)
	user, phone, laptop := ids.New(), ids.New(), ids.New()
	sign := func(session ids.ID, ttl time.Duration) string {
		token, _, err := signer.Sign(user, session, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for _, session := range []ids.ID{phone, laptop} {
		if who, err := v.Verify(t.Context(), sign(session, time.Hour)); err != nil || who.SessionID != session || who.UserID != user {
			t.Errorf("a good token is %v's, %v", who, err)
		}
	}
	w.Revoke(phone, time.Now().Add(time.Hour))
	// The first was seen before.
	for _, ttl := range []time.Duration{time.Hour, 2 * time.Hour} {
		who, err := v.Verify(t.Context(), sign(phone, ttl))
		if errs.KindOf(err) != errs.Unauthenticated || who != (identity.Identity{}) {
			t.Errorf("a token of a revoked session is %v's, %v", who, err)
		}
	}
	if _, err := v.Verify(t.Context(), sign(laptop, time.Hour)); err != nil {
		t.Errorf("another session of the same user: %v", err)
	}
	if _, err := v.Verify(t.Context(), "garbage"); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("garbage: %v", err)
	}
}

func TestSettingsThatBreakTheGuaranteeAreRefused(t *testing.T) {
	t.Parallel()
	for interval, ok := range map[time.Duration]bool{
		-time.Second: false, 0: false, 1: true, time.Millisecond: true, 25 * time.Second: true, 26 * time.Second: false,
	} {
		cfg := Config{PollInterval: interval}
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("%v: %v", interval, err)
		}
	}
}

func TestPausesAreNeverLongerThanTheInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noRedis, seldom)
	for range 1000 {
		if pause := w.pause(); pause > seldom || pause < seldom*3/4-1 {
			t.Fatalf("a pause of %v at an interval of %v", pause, seldom)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := proto.Marshal(&eventsv1.SessionsRevoked{Sessions: []*usersv1.RevokedSession{
		{Id: make([]byte, ids.Size), TokensEndAtMs: 1}, {Id: []byte("short"), TokensEndAtMs: -1},
	}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{good, good[:7], nil, []byte("garbage"), {0x0a, 0xff}, {0x0a, 0}} {
		f.Add(seed)
	}
	rdb, err := redisclient.Connect("redis://" + noRedis)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = rdb.Close() })
	f.Fuzz(func(t *testing.T, payload []byte) {
		l := New(Config{PollInterval: seldom}, rdb, &fakeUsers{}, slog.New(slog.DiscardHandler))
		defer l.unobserve()
		sessions, err := decode(string(payload))
		if (err == nil) != (len(sessions) > 0) {
			t.Fatalf("%d sessions, %v", len(sessions), err)
		}
		l.revokeAll(sessions)
		if n, _ := l.known(); n > len(sessions) {
			t.Fatalf("%d sessions are known of %d", n, len(sessions))
		}
		l.forgetEnded(time.Now())
	})
}
