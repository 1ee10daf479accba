// Package harness runs whole systems for tests, the torture and the benchmark: a private MariaDB, a private Redis, and any
// number of processes of the three services, each a child of this process that can be killed, stopped, paused and
// started again by itself.
//
// Nothing of it outlives this process on Linux. What the processes write is kept in files of the stack's folder, and
// Close reports a panic or a data race that it finds there.
package harness

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	// The driver of the stack's databases.
	_ "github.com/go-sql-driver/mysql"

	"chatapp.dev/internal/platform/mariadb"
	"chatapp.dev/internal/platform/redisserver"
)

// Options says what to start.
type Options struct {
	// Programs are the services, which Build made.
	Programs *Programs
	// Dir gets logs, keys and lists of faults. It must exist.
	Dir string
	// MySQL is a server to share, on which the stack makes databases of its own; nil starts one for the stack alone.
	MySQL *mariadb.Server
	// Durable makes a server of the stack's own flush every commit to the disk.
	Durable bool
	// Users, Messages and Graphs are numbers of processes; 0 means 1.
	Users, Messages, Graphs int
	// RedisCluster starts a Redis Cluster instead of a single Redis.
	RedisCluster bool
	// Env are more settings of the services, such as "MESSAGES_LOG_RETENTION=1s".
	Env []string
	// Faults are those that strike each service ("graph": "hub.hint=drop") from its start on; see Process.SetFaults.
	Faults map[string]string
	// TapSQL records what the services send to MySQL, see Stack.Tap.
	TapSQL bool
	// Log gets a line for each start; nil means none.
	Log *slog.Logger
}

// CheapPasswords is a setting that makes passwords quick to hash, for tests with many accounts.
const CheapPasswords = "USERS_PASSWORD_HASH_MEMORY=64"

// Stack is a running system.
type Stack struct {
	MySQL *mariadb.Server
	// Redis is nil, and RedisCluster is not, if the options say so.
	Redis        *redisserver.Server
	RedisCluster *redisserver.Cluster
	// The processes.
	Users, Messages, Graphs []*Process

	opts      Options
	ownsMySQL bool
	databases map[string]string // The name of each service's database.
	env       []string
	taps      map[string]*Tap
	balancers []*balancer
}

// settings that make stopping quick: nobody routes to these processes who would need time to notice.
var quickStop = []string{
	"USERS_RPC_DRAIN_DELAY=100ms", "MESSAGES_RPC_DRAIN_DELAY=100ms", "GRAPH_DRAIN_DELAY=100ms", "GRAPH_SOCKET_DRAIN=100ms",
}

// noRates are settings that let everybody ask as often as they can: all clients have one address, and a few users stand
// for many.
var noRates = []string{"GRAPH_RATE_USER=0", "GRAPH_RATE_ADDRESS=0"}

// Start starts a stack and returns when every process is ready. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (_ *Stack, err error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Stack{opts: opts, MySQL: opts.MySQL, databases: map[string]string{}, taps: map[string]*Tap{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.MySQL == nil {
		s.MySQL, err = mariadb.Start(ctx, mariadb.Options{Fast: !opts.Durable, Log: opts.Log})
		if err != nil {
			return s, err
		}
		s.ownsMySQL = true
	}
	if opts.RedisCluster {
		s.RedisCluster, err = redisserver.StartCluster(ctx, opts.Log)
	} else {
		s.Redis, err = redisserver.Start(ctx, redisserver.Options{Log: opts.Log})
	}
	if err != nil {
		return s, err
	}
	if err := s.prepare(ctx); err != nil {
		return s, err
	}
	return s, s.startServices(ctx)
}

// prepare makes databases, their schemas and a key, and the settings that all processes share.
func (s *Stack) prepare(ctx context.Context) error {
	var unique [4]byte
	_, _ = rand.Read(unique[:]) // It never fails.
	s.env = append(slices.Concat(quickStop, noRates), "USERS_SIGNING_KEYS="+filepath.Join(s.opts.Dir, "key.pem"),
		"USERS_REDIS="+s.RedisURL(), "MESSAGES_REDIS="+s.RedisURL(), "GRAPH_REDIS="+s.RedisURL())
	if err := s.opts.Programs.Run(ctx, nil, "users", "keys", "generate", filepath.Join(s.opts.Dir, "key.pem")); err != nil {
		return err
	}
	for _, service := range []string{"users", "messages"} {
		name := service + "_" + hex.EncodeToString(unique[:])
		s.databases[service] = name
		if err := s.MySQL.CreateDatabase(ctx, name); err != nil {
			return err
		}
		dsn := s.MySQL.DSN(name)
		if s.opts.TapSQL {
			tap, err := startTap(s.MySQL.Port())
			if err != nil {
				return err
			}
			s.taps[service] = tap
			dsn = strings.Replace(dsn, fmt.Sprintf(":%d)", s.MySQL.Port()), fmt.Sprintf(":%d)", tap.port()), 1)
		}
		setting := strings.ToUpper(service) + "_MYSQL_DSN=" + dsn
		if err := s.opts.Programs.Run(ctx, []string{setting}, service, "migrate"); err != nil {
			return err
		}
		s.env = append(s.env, setting)
	}
	return nil
}

func (s *Stack) startServices(ctx context.Context) error {
	groups := []struct {
		service   string
		processes *[]*Process
		number    int
		settings  []string // Those that need the address of this group.
	}{
		{"users", &s.Users, s.opts.Users, []string{"MESSAGES_USERS", "GRAPH_USERS"}},
		{"messages", &s.Messages, s.opts.Messages, []string{"GRAPH_MESSAGES"}},
		{"graph", &s.Graphs, s.opts.Graphs, nil},
	}
	for _, group := range groups {
		env := slices.Concat(s.env, s.opts.Env)
		var addresses []string
		for i := range max(1, group.number) {
			p := newProcess(s.opts.Programs, s.opts.Dir, group.service, i+1, env)
			*group.processes = append(*group.processes, p)
			if err := p.SetFaults(s.opts.Faults[group.service]); err != nil {
				return err
			}
			if err := p.Start(ctx); err != nil {
				return err
			}
			addresses = append(addresses, p.Addr())
			s.opts.Log.Debug("service started", "process", p.Name, "address", p.Addr(), "pid", p.Pid())
		}
		address := addresses[0]
		if len(addresses) > 1 && group.settings != nil {
			b, err := startBalancer(addresses)
			if err != nil {
				return err
			}
			s.balancers = append(s.balancers, b)
			address = b.addr()
		}
		for _, setting := range group.settings {
			s.env = append(s.env, setting+"="+address)
		}
	}
	return nil
}

// StartGraph starts one more graph process.
func (s *Stack) StartGraph(ctx context.Context, env ...string) (*Process, error) {
	p := newProcess(s.opts.Programs, s.opts.Dir, "graph", len(s.Graphs)+1, slices.Concat(s.env, s.opts.Env))
	s.Graphs = append(s.Graphs, p)
	return p, p.Start(ctx, env...)
}

// Processes returns all processes.
func (s *Stack) Processes() []*Process { return slices.Concat(s.Users, s.Messages, s.Graphs) }

// Endpoints returns the URLs of the GraphQL API, one a graph process.
func (s *Stack) Endpoints() []string {
	endpoints := make([]string, len(s.Graphs))
	for i, p := range s.Graphs {
		endpoints[i] = "http://" + p.Addr() + "/graphql"
	}
	return endpoints
}

// RedisURL is where the stack's Redis is.
func (s *Stack) RedisURL() string {
	if s.RedisCluster != nil {
		return s.RedisCluster.URL()
	}
	return (&url.URL{Scheme: "redis", Host: s.Redis.Addr(), Path: "/0"}).String()
}

// DSN names the database of "users" or "messages".
func (s *Stack) DSN(service string) string { return s.MySQL.DSN(s.databases[service]) }

// OpenDB opens the database of "users" or "messages", to look at what no client can see.
func (s *Stack) OpenDB(service string) (*sql.DB, error) { return sql.Open("mysql", s.DSN(service)) }

// Env are the settings that all processes share, for commands such as "messages epoch renew".
func (s *Stack) Env() []string { return slices.Clone(s.env) }

// Tap returns the record of what a service sends to MySQL; the stack must have been started with TapSQL.
func (s *Stack) Tap(service string) *Tap { return s.taps[service] }

// Programs are what the stack runs.
func (s *Stack) Programs() *Programs { return s.opts.Programs }

// Dir is where logs, keys and lists of faults are.
func (s *Stack) Dir() string { return s.opts.Dir }

// Close ends everything, and returns what the processes wrote that no process may.
func (s *Stack) Close() error {
	var errs []error
	var stopping sync.WaitGroup
	processes := s.Processes()
	stopped := make([]error, len(processes))
	for i, p := range processes {
		if !p.Running() {
			continue
		}
		stopping.Go(func() { stopped[i] = errors.Join(p.Resume(), p.Stop()) })
	}
	stopping.Wait()
	errs = append(errs, stopped...)
	for _, p := range processes {
		errs = append(errs, p.findings())
	}
	for _, b := range s.balancers {
		b.close()
	}
	for _, tap := range s.taps {
		tap.close()
	}
	if s.Redis != nil {
		errs = append(errs, s.Redis.Stop())
	}
	if s.RedisCluster != nil {
		errs = append(errs, s.RedisCluster.Stop())
	}
	if s.ownsMySQL {
		errs = append(errs, s.MySQL.Stop())
	}
	return errors.Join(errs...)
}

// LogTails returns the end of each process's log, for a report of a failure.
func (s *Stack) LogTails() string {
	var tails strings.Builder
	for _, p := range s.Processes() {
		if _, err := os.Stat(p.LogFile()); err == nil {
			fmt.Fprintf(&tails, "--- %s\n%s\n", p.LogFile(), p.logSince(0))
		}
	}
	return tails.String()
}
