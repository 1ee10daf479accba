// Package allinone runs all of ChatApp in one process: the services users, messages and graph, each through its own Run
// as in production, on the database and the Redis of package engine. It is for development and tests.
//
// What the system has acknowledged is in the data folder and there at the next start, whatever ends this process. Redis
// forgets everything with the process, and nothing is lost by that. Settings for development are on: the bulk calls,
// introspection, the playground, gRPC reflection. Whoever reaches the system can therefore act as anybody, and so users
// and messages listen on 127.0.0.1 alone.
package allinone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"chatapp.dev/dev/internal/engine"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/graph"
	"chatapp.dev/services/messages"
	"chatapp.dev/services/users"
)

// The databases have names that tell whose they are, since the server may be one that others use too.
const (
	usersDatabase    = "chatapp_users"
	messagesDatabase = "chatapp_messages"
)

// Options says what to run.
type Options struct {
	// Dir keeps the data and the key that signs access tokens. It must exist.
	Dir string
	// Engine is the database to use, and DSN that of a running server, as in engine.Options.
	Engine engine.Kind
	DSN    string
	// Redis is the host and port of a running Redis; empty means one in this process.
	Redis string
	// Listener is where graph serves. It is closed in the end, also when Start fails.
	Listener net.Listener
	// Progress is shown what takes long; nil shows nothing.
	Progress io.Writer
	Log      *slog.Logger
}

// System is a running ChatApp.
type System struct {
	database  *engine.Engine
	redis     *engine.Redis
	listeners []net.Listener
	services  []*service // In the order of their start.

	usersAddr, messagesAddr, graphAddr string

	failed context.Context // Ends, with the reason as its cause, when a part ends that was not told to.
	fail   context.CancelCauseFunc

	stopping chan struct{} // Closed when Stop begins.
	stop     func() error
}

// service is one service, from its start on.
type service struct {
	name   string
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // What Run returned; set before ended is closed.
}

// Start starts everything and returns when every service is ready. ctx bounds the start only. Settings that the
// environment has for the services (such as GRAPH_PAGE_SIZE) hold, except those that say where the parts are.
func Start(ctx context.Context, opts Options) (_ *System, err error) {
	s := &System{listeners: []net.Listener{opts.Listener}, stopping: make(chan struct{})}
	s.failed, s.fail = context.WithCancelCause(context.Background())
	s.stop = sync.OnceValue(s.stopAll)
	defer func() {
		if err != nil {
			// A program that was interrupted together with us may have failed before ctx ended it.
			err = errors.Join(err, ctx.Err(), s.stop())
		}
	}()
	s.database, err = engine.Open(ctx, engine.Options{
		Kind: opts.Engine, DSN: opts.DSN, Dir: opts.Dir, Databases: []string{usersDatabase, messagesDatabase},
		Progress: opts.Progress, Log: opts.Log,
	})
	if err != nil {
		return nil, err
	}
	s.redis, err = engine.OpenRedis(ctx, engine.RedisOptions{Addr: opts.Redis, Log: opts.Log})
	if err != nil {
		return nil, err
	}
	key := filepath.Join(opts.Dir, "signing-key.pem")
	if err := identity.GenerateKeyFile(key); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	warn := &atomic.Bool{}
	log := slog.New(startHandler{Handler: opts.Log.Handler(), warn: warn})
	if err := s.startUsers(ctx, key, log); err != nil {
		return nil, err
	}
	if err := s.startMessages(ctx, log); err != nil {
		return nil, err
	}
	if err := s.startGraph(ctx, opts.Listener, log); err != nil {
		return nil, err
	}
	warn.Store(true)
	go s.watchDatabase()
	return s, nil
}

func (s *System) startUsers(ctx context.Context, key string, log *slog.Logger) (err error) {
	var cfg users.Config
	err = run.Parse("users", &cfg, []string{
		"--mysql-dsn=" + s.database.DSN(usersDatabase), "--signing-keys=" + key, "--redis=" + s.redisURL(),
		"--rpc-drain-delay=0s", "--rpc-reflection", "--development",
	})
	if err != nil {
		return err
	}
	if cfg.Listener, s.usersAddr, err = s.listen(); err != nil {
		return err
	}
	admin, adminAddr, err := s.listen()
	if err != nil {
		return err
	}
	cfg.AdminListener = admin
	if err := users.Migrate(ctx, users.MigrateConfig{MySQL: cfg.MySQL}, log); err != nil {
		return err
	}
	return s.launch(ctx, "users", adminAddr, func(ctx context.Context) error {
		return users.Run(ctx, cfg, log.With("service", "users"))
	})
}

func (s *System) startMessages(ctx context.Context, log *slog.Logger) (err error) {
	var cfg messages.Config
	err = run.Parse("messages", &cfg, []string{
		"--mysql-dsn=" + s.database.DSN(messagesDatabase), "--redis=" + s.redisURL(), "--users=" + s.usersAddr,
		"--rpc-drain-delay=0s", "--rpc-reflection", "--development",
	})
	if err != nil {
		return err
	}
	if cfg.Listener, s.messagesAddr, err = s.listen(); err != nil {
		return err
	}
	admin, adminAddr, err := s.listen()
	if err != nil {
		return err
	}
	cfg.AdminListener = admin
	if err := messages.Migrate(ctx, messages.MigrateConfig{MySQL: cfg.MySQL}, log); err != nil {
		return err
	}
	return s.launch(ctx, "messages", adminAddr, func(ctx context.Context) error {
		return messages.Run(ctx, cfg, log.With("service", "messages"))
	})
}

func (s *System) startGraph(ctx context.Context, listener net.Listener, log *slog.Logger) error {
	var cfg graph.Config
	err := run.Parse("graph", &cfg, []string{
		"--redis=" + s.redisURL(), "--users=" + s.usersAddr, "--messages=" + s.messagesAddr,
		"--drain-delay=0s", "--development",
	})
	if err != nil {
		return err
	}
	admin, adminAddr, err := s.listen()
	if err != nil {
		return err
	}
	cfg.AdminListener = admin
	cfg.Listener, s.graphAddr = listener, listener.Addr().String()
	return s.launch(ctx, "graph", adminAddr, func(ctx context.Context) error {
		return graph.Run(ctx, cfg, log.With("service", "graph"))
	})
}

// listen opens a free port for this machine only.
func (s *System) listen() (net.Listener, string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("open a port for a service: %w", err)
	}
	s.listeners = append(s.listeners, listener)
	return listener, listener.Addr().String(), nil
}

func (s *System) redisURL() string { return "redis://" + s.redis.Addr() + "/0" }

// launch runs a service and returns when it is ready.
func (s *System) launch(ctx context.Context, name, adminAddr string, serve func(context.Context) error) error {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	v := &service{name: name, cancel: cancel, ended: make(chan struct{})}
	s.services = append(s.services, v)
	go func() {
		v.err = serve(running)
		if v.err == nil && running.Err() == nil {
			v.err = errors.New("it ended by itself")
		}
		if running.Err() == nil {
			s.fail(fmt.Errorf("%s failed: %w", name, v.err))
		}
		close(v.ended)
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, adminAddr) {
			return nil
		}
		select {
		case <-v.ended:
			return fmt.Errorf("start %s: %w", name, v.err)
		case <-ctx.Done():
			return fmt.Errorf("start %s: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}

func (v *service) hasEnded() bool {
	select {
	case <-v.ended:
		return true
	default:
		return false
	}
}

// ready asks a service's readiness probe.
func ready(ctx context.Context, adminAddr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+adminAddr+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := probes.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// probes keeps no connection open that a service would have to wait for when it stops.
var probes = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// watchDatabase tells when the database ends by itself.
func (s *System) watchDatabase() {
	select {
	case <-s.stopping:
	case <-s.database.Done():
		s.fail(errors.New("the database ended by itself"))
	}
}

// Failed returns a channel that is closed when a part of the system has ended that was not told to. Stop says which.
func (s *System) Failed() <-chan struct{} { return s.failed.Done() }

// Stop stops everything, what depends on others first: graph, messages, users, Redis, the database. Its error says what
// had failed before, and what could not be stopped cleanly.
func (s *System) Stop() error { return errors.Join(context.Cause(s.failed), s.stop()) }

func (s *System) stopAll() error {
	close(s.stopping)
	var errs []error
	for _, v := range slices.Backward(s.services) {
		failed := v.hasEnded()
		v.cancel()
		<-v.ended
		if !failed && v.err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", v.name, v.err))
		}
	}
	// A service closes its own; these are of services that were never started.
	for _, listener := range s.listeners {
		_ = listener.Close()
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Close())
	}
	if s.database != nil {
		errs = append(errs, s.database.Close())
	}
	return errors.Join(errs...)
}

// Database tells people in one line which database serves and why.
func (s *System) Database() string { return s.database.Name() }

// Redis tells people in one line which Redis serves.
func (s *System) Redis() string { return s.redis.Name() }

// GraphAddr is where the API is: host and port.
func (s *System) GraphAddr() string { return s.graphAddr }

// UsersAddr is where users serves gRPC.
func (s *System) UsersAddr() string { return s.usersAddr }

// MessagesAddr is where messages serves gRPC.
func (s *System) MessagesAddr() string { return s.messagesAddr }

// startHandler withholds warnings until warn is set. Services that start warn of their settings for development, which
// are what this package is for; what keeps one from starting is an error, and returned.
type startHandler struct {
	slog.Handler
	warn *atomic.Bool
}

// Enabled implements slog.Handler.
func (h startHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return (level != slog.LevelWarn || h.warn.Load()) && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h startHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return startHandler{Handler: h.Handler.WithAttrs(attrs), warn: h.warn}
}

// WithGroup implements slog.Handler.
func (h startHandler) WithGroup(name string) slog.Handler {
	return startHandler{Handler: h.Handler.WithGroup(name), warn: h.warn}
}
