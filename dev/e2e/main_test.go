// Package e2e tests the whole system: users, messages and graph as separate processes on a real MariaDB and a real Redis,
// talked to only through GraphQL and WebSocket. Its tests bear the names of what must hold.
//
// Tests that only talk share a stack of two graph and two messages processes, each with users of its own. Those that
// strike faults or look at costs have a stack of their own. Those whose statement is a time or an amount do not run in
// parallel, and those that count what a crowd costs run services as they are built for production; the others have the
// race detector.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/mariadb"
)

var tortureFor = flag.Duration("torture", 60*time.Second, "how long TestTorture lets faults strike")

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if err := errors.Join(shared.close(code == 0), world.close()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// startTimeout bounds the start of a stack, and the first build of the services before it.
const startTimeout = 15 * time.Minute

// world is what all stacks of this process share.
var world = &sharedWorld{}

type sharedWorld struct {
	// checked are the services with the race detector and the fault points, plain those as they are for production.
	checked, plain built
	starting       sync.Once
	mysql          *mariadb.Server
	err            error
}

// open builds the services with everything that finds a mistake and starts MariaDB, once.
func (w *sharedWorld) open(t *testing.T) (*harness.Programs, *mariadb.Server) {
	t.Helper()
	return w.checked.build(t, harness.Flavour{Race: true, Faults: true}), w.server(t)
}

// server starts MariaDB, once.
func (w *sharedWorld) server(t *testing.T) *mariadb.Server {
	t.Helper()
	w.starting.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		w.mysql, w.err = mariadb.Start(ctx, mariadb.Options{Fast: true, MaxConnections: 1000})
	})
	if w.err != nil {
		t.Fatalf("e2e: %v", w.err)
	}
	return w.mysql
}

// built are the services in one flavour.
type built struct {
	once     sync.Once
	programs *harness.Programs
	err      error
}

func (b *built) build(t *testing.T, flavour harness.Flavour) *harness.Programs {
	t.Helper()
	b.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		b.programs, b.err = harness.Build(ctx, flavour, slog.New(slog.DiscardHandler))
	})
	if b.err != nil {
		t.Fatalf("e2e: %v", b.err)
	}
	return b.programs
}

func (b *built) remove() error {
	if b.programs == nil {
		return nil
	}
	return b.programs.Remove()
}

func (w *sharedWorld) close() error {
	var errs []error
	if w.mysql != nil {
		errs = append(errs, w.mysql.Stop())
	}
	return errors.Join(append(errs, w.checked.remove(), w.plain.remove())...)
}

// patientPings is a setting for tests whose sockets answer pings only when the test comes to read them, which takes a
// while on a busy machine.
const patientPings = "GRAPH_SOCKET_PONG_TIMEOUT=1m"

// shared is the stack that tests share which only talk.
var shared = &sharedStack{}

type sharedStack struct {
	once  sync.Once
	stack *harness.Stack
	dir   string
	err   error
}

// sharedFor returns the shared stack.
func sharedFor(t *testing.T) *harness.Stack {
	t.Helper()
	programs, mysql := world.open(t)
	shared.once.Do(func() {
		//nolint:usetesting // It is for all tests, and stays when one of them fails.
		if shared.dir, shared.err = os.MkdirTemp("", "chatapp-e2e-shared-"); shared.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		shared.stack, shared.err = harness.Start(ctx, harness.Options{
			Programs: programs, Dir: shared.dir, MySQL: mysql, Messages: 2, Graphs: 2,
			Env: []string{harness.CheapPasswords, patientPings},
		})
	})
	if shared.err != nil {
		t.Fatalf("e2e: %v", shared.err)
	}
	return shared.stack
}

func (s *sharedStack) close(passed bool) error {
	if s.stack == nil {
		return nil
	}
	err := s.stack.Close()
	if !passed || err != nil {
		fmt.Fprintln(os.Stderr, "e2e: the logs of the shared stack are in", s.dir)
		return err
	}
	return os.RemoveAll(s.dir)
}

// ownStack starts a stack for one test. Its logs are shown and kept when the test fails.
func ownStack(t *testing.T, opts harness.Options) *harness.Stack {
	t.Helper()
	opts.Programs, _ = world.open(t)
	return startStack(t, opts)
}

// startStack is ownStack with programs of the test's own choice.
func startStack(t *testing.T, opts harness.Options) *harness.Stack {
	t.Helper()
	opts.Env = append(opts.Env, harness.CheapPasswords)
	opts.Dir = keptDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	stack, err := harness.Start(ctx, opts)
	if err != nil {
		t.Fatalf("e2e: %v", err)
	}
	t.Cleanup(func() {
		if err := stack.Close(); err != nil {
			t.Errorf("e2e: %v", err)
		}
		if t.Failed() {
			t.Logf("the logs end with:\n%s", stack.LogTails())
		}
	})
	return stack
}

// onSharedMySQL makes a stack use the MariaDB that all share, with databases of its own.
func onSharedMySQL(t *testing.T, opts harness.Options) harness.Options {
	t.Helper()
	opts.MySQL = world.server(t)
	return opts
}

// keptDir is a temporary folder that stays when the test fails.
func keptDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chatapp-e2e-") //nolint:usetesting // It stays when the test fails.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("files are kept in", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
