package allinone

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/engine"
	"chatapp.dev/internal/platform/filelock"
	"chatapp.dev/internal/platform/rpc"
)

// options are those of a system on MariaDB and the data in dir.
func options(t *testing.T, dir string) Options {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Dir: dir, Engine: engine.MariaDB, Listener: listener, Progress: t.Output(),
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func start(t *testing.T, opts Options) *System {
	t.Helper()
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *System) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

func graphQL(s *System) *client.Client { return client.New("http://" + s.GraphAddr() + "/graphql") }

func TestTwoPeopleTalkAndARestartKeepsIt(t *testing.T) {
	const password = "correct horse"
	dir := t.TempDir()
	s := start(t, options(t, dir))
	c := graphQL(s)
	ada, err := c.SignUp(t.Context(), client.Account{Username: "ada", Email: "ada@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	bob, err := c.SignUp(t.Context(), client.Account{Username: "bob", Email: "bob@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	subscription, err := bob.Subscribe(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	sent, err := ada.Send(t.Context(), client.Draft{
		RecipientID: bob.User.ID, Body: "Hello!", ClientID: "0192f0c4-0000-7000-8000-000000000001",
	})
	if err != nil {
		t.Fatal(err)
	}
	if event := <-subscription.Events(); event.Message.ID != sent.ID {
		t.Errorf("bob got %+v, want %+v", event.Message, sent)
	}
	cursor, err := bob.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	stop(t, s)
	for range subscription.Events() {
		t.Error("an event after the stop")
	}
	for _, addr := range []string{s.GraphAddr(), s.UsersAddr(), s.MessagesAddr()} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("somebody listens on %s after the stop", addr)
		}
	}

	s = start(t, options(t, dir))
	// The tokens and cursors from before hold, too.
	bob = graphQL(s).As(bob.User, bob.Token)
	again, err := bob.Message(t.Context(), sent.ID)
	if err != nil {
		t.Fatal(err)
	}
	if again == nil || again.Body != "Hello!" {
		t.Errorf("after the restart the message is %+v", again)
	}
	if now, err := bob.Cursor(t.Context()); err != nil || now != cursor {
		t.Errorf("after the restart the cursor is %q, %v; want %q", now, err, cursor)
	}
	if _, err := graphQL(s).SignIn(t.Context(), "ada", password); err != nil {
		t.Error(err)
	}
}

func TestTheServicesTakeTheirSettingsFromTheEnvironment(t *testing.T) {
	t.Setenv("USERS_TOKEN_TTL", "soon")
	if _, err := Start(t.Context(), options(t, t.TempDir())); err == nil || !strings.Contains(err.Error(), "USERS_TOKEN_TTL") {
		t.Errorf("got %v, want an error about USERS_TOKEN_TTL", err)
	}
}

func TestItsRedisCountsRequests(t *testing.T) {
	t.Setenv("GRAPH_RATE_USER", "0.01")
	t.Setenv("GRAPH_RATE_USER_BURST", "3")
	t.Setenv("GRAPH_RATE_REDIS_WAIT", "1m")
	opts := options(t, t.TempDir())
	logFile := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	opts.Log = slog.New(slog.NewTextHandler(log, nil))
	s := start(t, opts)
	ada, err := graphQL(s).SignUp(t.Context(), client.Account{Username: "ada", Email: "ada@example.com", Password: "correct horse"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := ada.Cursor(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ada.Cursor(t.Context()); client.Code(err) != "RATE_LIMITED" {
		t.Errorf("one request too many: %v", err)
	}
	// The process would count by itself and say so.
	logged, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(logged), "Redis does not count requests") {
		t.Errorf("the log has:\n%s", logged)
	}
}

func TestAFailedStartLeavesNothingRunning(t *testing.T) {
	dir := t.TempDir()
	// A key that is none stops users, when the database runs already.
	key := filepath.Join(dir, "signing-key.pem")
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := options(t, dir)
	if _, err := Start(t.Context(), opts); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("got %v, want an error about %s", err, key)
	}
	if conn, err := net.Dial("tcp", opts.Listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("the listener is still open")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	start(t, options(t, dir)) // The folder of the database is free again.
}

func TestACanceledStartStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, options(t, t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestTwoSystemsNeverShareAFolder(t *testing.T) {
	dir := t.TempDir()
	start(t, options(t, dir))
	if _, err := Start(t.Context(), options(t, dir)); !errors.Is(err, filelock.ErrHeld) {
		t.Errorf("got %v, want filelock.ErrHeld", err)
	}
}

func TestASystemWhoseDatabaseDiesSaysSo(t *testing.T) {
	s, err := Start(t.Context(), options(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.database.Kill(); err != nil {
		t.Error(err)
	}
	<-s.Failed()
	if err := s.Stop(); err == nil || !strings.Contains(err.Error(), "the database ended by itself") {
		t.Errorf("Stop: %v, want the reason", err)
	}
}

func TestTheBulkCallsAreOffered(t *testing.T) {
	s := start(t, options(t, t.TempDir()))
	conn, err := rpc.Dial(s.UsersAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	res, err := usersv1.NewDevelopmentServiceClient(conn).CreateUsers(t.Context(), &usersv1.CreateUsersRequest{
		Users: []*usersv1.NewUser{{Username: "eve"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	eve := graphQL(s).As(client.User{}, res.GetUsers()[0].GetAccessToken().GetToken())
	if me, err := eve.Me(t.Context()); err != nil || me.Username != "eve" {
		t.Errorf("me is %+v, %v; want eve", me, err)
	}
}
