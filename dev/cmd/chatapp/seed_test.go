package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/dev/internal/allinone"
	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/engine"
	"chatapp.dev/dev/internal/seed"
	"chatapp.dev/internal/platform/run"
)

// startSystem starts a system in this process, and returns it with a client for nobody.
func startSystem(t *testing.T) (*allinone.System, *client.Client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := allinone.Start(t.Context(), allinone.Options{
		Dir: t.TempDir(), Engine: engine.MariaDB, Listener: listener,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s, client.New("http://" + s.GraphAddr() + "/graphql")
}

// runSeed seeds a system and returns the people that were printed.
func runSeed(t *testing.T, s *allinone.System, args ...string) []seed.User {
	t.Helper()
	var cli cli
	args = append([]string{"seed", "--users-addr=" + s.UsersAddr(), "--messages-addr=" + s.MessagesAddr()}, args...)
	if err := run.Parse("chatapp", &cli, args); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := cli.Seed.run(t.Context(), &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	var people []seed.User
	for lines := json.NewDecoder(&out); ; {
		var person seed.User
		err := lines.Decode(&person)
		if err == io.EOF {
			return people
		}
		if err != nil {
			t.Fatal(err)
		}
		people = append(people, person)
	}
}

// said is what somebody can read in all conversations: bodies by the names of those who talk.
func said(t *testing.T, c *client.Client) map[string][]string {
	t.Helper()
	conversations, err := c.AllConversations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, conversation := range conversations {
		history, err := c.AllHistory(t.Context(), conversation.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range history {
			with := conversation.With.DisplayName
			all[with] = append(all[with], m.Sender.DisplayName+": "+m.Body)
		}
	}
	return all
}

func TestSeedMakesWhatItIsAskedFor(t *testing.T) {
	s, nobody := startSystem(t)
	args := []string{"--users=4", "--conversations=6", "--messages=2500", "--seed=7", "--password=open sesame"}
	people := runSeed(t, s, append(args, "--prefix=first")...)
	if len(people) != 4 {
		t.Fatalf("%d people, want 4", len(people))
	}
	total := 0
	for i, person := range people {
		c := nobody.As(client.User{}, person.AccessToken)
		me, err := c.Me(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// The id that is printed is the one that graph makes.
		if me.ID != person.ID || me.Username != person.Username || me.Username != []string{"first1", "first2", "first3", "first4"}[i] {
			t.Errorf("printed %+v, graph says %+v", person, me)
		}
		if _, err := nobody.SignIn(t.Context(), person.Username, "open sesame"); err != nil {
			t.Error(err)
		}
		all := said(t, c)
		if len(all) != 3 {
			t.Errorf("%s talks with %d people, want 3", person.Username, len(all))
		}
		for _, bodies := range all {
			total += len(bodies)
		}
	}
	if total != 2*2500 { // Both can read each.
		t.Errorf("%d messages, want 2500 seen by two each", total)
	}

	// The same seed makes the same people say the same.
	twins := runSeed(t, s, append(args, "--prefix=second")...)
	first := said(t, nobody.As(client.User{}, people[0].AccessToken))
	second := said(t, nobody.As(client.User{}, twins[0].AccessToken))
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("another run of the same seed (-first +second)\n%s", diff)
	}

	// Seeding again signs in who is there.
	again := runSeed(t, s, "--users=4", "--seed=7", "--prefix=first")
	for i := range again {
		if again[i].ID != people[i].ID {
			t.Errorf("seeding again made %+v of %+v", again[i], people[i])
		}
	}
}

func TestSeedFindsTheSystemByItsFolder(t *testing.T) {
	dir := t.TempDir()
	if got := finish(t, dir, "seed"); got.code != 1 || !strings.Contains(got.stderr, "no ChatApp runs on the data folder .chatapp") {
		t.Errorf("without a system: got %+v", got)
	}
	r := startRun(t, dir)
	got := finish(t, dir, "seed", "--users=2", "--conversations=3", "--messages=3")
	if got.code != 0 || strings.Count(got.stdout, "\n") != 2 || !strings.Contains(got.stderr, "messages: 3 of 3") {
		t.Errorf("got %+v", got)
	}
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.end()
	if got := finish(t, dir, "seed"); got.code != 1 || !strings.Contains(got.stderr, "runs no more") {
		t.Errorf("after the system was killed: got %+v", got)
	}
}

func TestSettingsOfSeedThatAreWrongAreNamed(t *testing.T) {
	tests := []struct{ args, want string }{
		{"--users=0", "--users (CHATAPP_USERS) must be 1 or more, but is 0"},
		{"--users=3 --conversations=7 --messages=7", "--conversations (CHATAPP_CONVERSATIONS) must be 0 to 6, the most that 3 people can have, but is 7"},
		{"--conversations=3 --messages=2", "--messages (CHATAPP_MESSAGES) must be at least 3, since a conversation begins with a message, but is 2"},
		{"--messages=2", "--conversations (CHATAPP_CONVERSATIONS) must be 1 or more with --messages"},
		{"--users-addr=127.0.0.1:1", "--messages-addr (CHATAPP_MESSAGES_ADDR) is needed with --users-addr"},
		{"--messages-addr=127.0.0.1:1", "--users-addr (CHATAPP_USERS_ADDR) is needed with --messages-addr"},
		{"--users-addr=localhost --messages-addr=127.0.0.1:1", `--users-addr (CHATAPP_USERS_ADDR) must be host:port, such as 127.0.0.1:8080 or :8080, but is "localhost"`},
	}
	for _, test := range tests {
		err := run.Parse("chatapp", &cli{}, append([]string{"seed"}, strings.Fields(test.args)...))
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", test.args, err, test.want)
		}
	}
}
