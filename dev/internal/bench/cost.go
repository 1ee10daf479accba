package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"chatapp.dev/dev/internal/allinone"
	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/engine"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/seed"
)

// costSends is how many sends the costs are averaged over.
const costSends = 2000

// Cost is what one send takes, on average.
type Cost struct {
	// RoundTrips are the commands to MySQL that the sender waits for.
	RoundTrips float64 `json:"sqlRoundTrips"`
	// AllRoundTrips has also those that go on behind the sender's back: flags of published events are cleared, in
	// batches, and the sweeper looks around.
	AllRoundTrips float64 `json:"allSqlRoundTrips"`
	// Statements are those that MySQL counts, of all these commands.
	Statements float64 `json:"sqlStatements"`
	// Allocations and AllocatedBytes are what the Go runtime counts in the three services together.
	Allocations    float64 `json:"allocations"`
	AllocatedBytes float64 `json:"allocatedBytes"`
}

// measureCost counts what a send costs.
func (b *bench) measureCost(ctx context.Context) error {
	b.show("counting what a send costs")
	if err := b.countSQL(ctx); err != nil {
		return err
	}
	return b.countAllocations(ctx)
}

// countSQL counts commands by listening in between messages and MySQL, in a second stack on the same server.
func (b *bench) countSQL(ctx context.Context) (err error) {
	dir := filepath.Join(b.opts.Dir, "tapped")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	tapped := &bench{opts: b.opts}
	tapped.stack, err = harness.Start(ctx, harness.Options{
		Programs: b.opts.Programs, Dir: dir, MySQL: b.stack.MySQL, TapSQL: true, Env: development, Log: b.opts.Log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tapped.stack.Close()) }()
	people, err := tapped.seed(ctx, "counted-", 2*workers, 0, 0)
	if err != nil {
		return err
	}
	senders, err := openSenders(ctx, tapped.stack.Endpoints()[0], people)
	if err != nil {
		return err
	}
	defer closeAll(senders)
	db, err := b.stack.OpenDB("messages")
	if err != nil {
		return fmt.Errorf("open MySQL: %w", err)
	}
	defer db.Close()
	before, err := questions(ctx, db)
	if err != nil {
		return err
	}
	tap := tapped.stack.Tap("messages")
	tap.Reset()
	if err := sendAll(senders); err != nil {
		return err
	}
	commands := tap.Commands()
	after, err := questions(ctx, db)
	if err != nil {
		return err
	}
	waited := 0
	for _, command := range commands {
		if !isBackground(command) {
			waited++
		}
	}
	c := &b.report.Cost
	c.RoundTrips = float64(waited) / costSends
	c.AllRoundTrips = float64(len(commands)) / costSends
	c.Statements = float64(after-before) / costSends
	return nil
}

// isBackground says whether a command to MySQL is one that no sender waits for: it clears the outbox's flags or looks
// for them, keeps a lock, or asks whether the connection works.
func isBackground(c harness.Command) bool {
	if c.Code == harness.ComPing {
		return true
	}
	if strings.Contains(c.Text, "INSERT INTO messages") {
		return false
	}
	for _, sign := range []string{"unrelayed", "_LOCK(", "FROM log_epoch"} {
		if strings.Contains(c.Text, sign) {
			return true
		}
	}
	return false
}

// questions is how many statements MySQL has executed for its clients.
func questions(ctx context.Context, db *sql.DB) (int64, error) {
	var (
		name  string
		value int64
	)
	if err := db.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Questions'").Scan(&name, &value); err != nil {
		return 0, fmt.Errorf("ask MySQL for its counters: %w", err)
	}
	return value, nil
}

// sendAll sends costSends messages, one after the other.
func sendAll(senders []*sender) error {
	for i := range costSends {
		if err := senders[i%len(senders)].send(); err != nil {
			return err
		}
	}
	return nil
}

// countAllocations runs the three services in this process, where the runtime's counters can be read, and sends with a
// client that allocates next to nothing. What it does allocate is counted with the rest.
func (b *bench) countAllocations(ctx context.Context) (err error) {
	dir := filepath.Join(b.opts.Dir, "allinone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open a port: %w", err)
	}
	system, err := allinone.Start(ctx, allinone.Options{
		Dir: dir, Engine: engine.DSN, DSN: b.stack.MySQL.DSN(""), Redis: b.stack.Redis.Addr(), Listener: listener,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, system.Stop()) }()
	endpoint := "http://" + system.GraphAddr() + "/graphql"
	api := client.New(endpoint)
	defer api.CloseIdle()
	var people []seed.User
	for i := range 2 {
		name := fmt.Sprintf("allocating-%d", i)
		c, err := api.SignUp(ctx, client.Account{Username: name, Email: name + "@example.com", Password: name})
		if err != nil {
			return fmt.Errorf("sign %s up: %w", name, err)
		}
		people = append(people, seed.User{ID: c.User.ID, AccessToken: c.Token})
	}
	senders, err := openSenders(ctx, endpoint, people)
	if err != nil {
		return err
	}
	defer closeAll(senders)
	if err := sendAll(senders); err != nil { // Pools and caches are filled.
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := sendAll(senders); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	b.report.Cost.Allocations = float64(after.Mallocs-before.Mallocs) / costSends
	b.report.Cost.AllocatedBytes = float64(after.TotalAlloc-before.TotalAlloc) / costSends
	return nil
}
