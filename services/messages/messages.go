// Package messages is the service that owns conversations, messages and every user's event log.
//
// What it acknowledges is committed in MySQL, once for each client id, and is published to Redis at least once, however
// the process ends. Redis may be away: sending goes on, and the events are published when it is back.
package messages

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/rpc"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/messages/internal/relay"
	"chatapp.dev/services/messages/internal/retention"
	"chatapp.dev/services/messages/internal/service"
	"chatapp.dev/services/messages/internal/store"
)

// Config are the settings of the service.
type Config struct {
	run.Common

	RPC   rpc.ServerConfig `embed:"" prefix:"rpc-"`
	MySQL mysql.Config     `embed:"" prefix:"mysql-"`

	Redis string `default:"redis://127.0.0.1:6379/0" help:"Redis that carries the events: redis://[user:password@]host:port/db, redis+sentinel://host:port,host:port/master or redis+cluster://host:port,host:port; rediss instead of redis for TLS."`
	Users string `default:"127.0.0.1:9001" help:"Address (host:port) of the users service; every address that the host resolves to is used in turn."`

	LogRetention      time.Duration `default:"720h" help:"How long events stay in users' logs, and so how old a cursor a client may resume from. Messages stay."`
	LogRetentionEvery time.Duration `default:"1h" help:"How often events older than that are deleted."`

	Development bool `help:"Offer the bulk calls that seeding and load tests need. Never in production: they ask for no token."`

	// Listener serves gRPC instead of the RPC listen address, when set.
	Listener net.Listener `kong:"-"`
	// AdminListener serves probes instead of the admin listen address, when set.
	AdminListener net.Listener `kong:"-"`
}

// Validate implements kong's hook.
func (c *Config) Validate() error {
	if err := redisclient.CheckURL(c.Redis); err != nil {
		return run.Invalid(&c.Redis, "%v", err)
	}
	if _, port, err := net.SplitHostPort(c.Users); err != nil || port == "" {
		return run.Invalid(&c.Users, "must be host:port, but is %q", c.Users)
	}
	if c.LogRetention <= 0 {
		return run.Invalid(&c.LogRetention, "must be more than 0, such as 720h")
	}
	if c.LogRetentionEvery <= 0 {
		return run.Invalid(&c.LogRetentionEvery, "must be more than 0, such as 1h")
	}
	return nil
}

// Run serves until ctx ends, and then stops in order: no new calls, the calls under way, the events still to publish.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	// The transaction that stores a message is one query of several statements.
	cfg.MySQL.MultiStatements = true
	database, err := mysql.Open(ctx, cfg.MySQL, log)
	if err != nil {
		return err
	}
	defer database.Close()
	migrator, err := newMigrator(database, log)
	if err != nil {
		return err
	}
	if err := migrator.Check(ctx); err != nil {
		return err
	}
	rdb, err := redisclient.Connect(cfg.Redis)
	if err != nil {
		return err
	}
	defer rdb.Close()
	usersConn, err := rpc.Dial(cfg.Users, rpc.WithRetry(
		usersv1.UsersService_BatchGetUsers_FullMethodName, usersv1.UsersService_GetSigningKeys_FullMethodName,
	))
	if err != nil {
		return err
	}
	defer usersConn.Close()
	users := usersv1.NewUsersServiceClient(usersConn)
	verifier := identity.NewVerifier(func(ctx context.Context) ([]byte, error) {
		res, err := users.GetSigningKeys(ctx, &usersv1.GetSigningKeysRequest{})
		return res.GetJwks(), err
	})

	st := store.New(database)
	rl := relay.New(rdb, st, service.EventProto, log)
	server := rpc.NewServer(cfg.RPC, verifier, map[string]bool{
		messagesv1.MessagesService_BatchGetLogHeads_FullMethodName:  true,
		messagesv1.DevelopmentService_ImportMessages_FullMethodName: cfg.Development,
	}, log)
	messagesv1.RegisterMessagesServiceServer(server, service.New(st, rl, users, verifier))
	if cfg.Development {
		log.WarnContext(ctx, "development calls are offered: whoever reaches this service can write in anybody's name")
		messagesv1.RegisterDevelopmentServiceServer(server, service.NewDevelopment(st))
	}
	admin := run.NewAdmin(log, map[string]run.Check{"mysql": database.PingContext})

	listener, err := cfg.RPC.Listen.Open(cfg.Listener)
	if err != nil {
		return err
	}
	adminListener, err := cfg.AdminListen.Open(cfg.AdminListener)
	if err != nil {
		_ = listener.Close()
		return err
	}

	// The relay ends after the last call, and the probes after everything.
	background, endBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer endBackground()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return admin.Serve(background, adminListener) })
	group.Go(func() error { return rl.Run(background) })
	group.Go(func() error { return rl.Sweep(ctx) })
	group.Go(func() error { return retention.Run(ctx, st, cfg.LogRetention, cfg.LogRetentionEvery, log) })
	group.Go(func() error {
		defer endBackground()
		admin.SetReady(true)
		stop := context.AfterFunc(ctx, func() { admin.SetReady(false) })
		defer stop()
		return server.Serve(ctx, listener)
	})
	return group.Wait()
}

// MigrateConfig are the settings of the commands that change the schema.
type MigrateConfig struct {
	run.Logging

	MySQL mysql.Config `embed:"" prefix:"mysql-"`
}

// Migrate brings the schema to the version that this program needs.
func Migrate(ctx context.Context, cfg MigrateConfig, log *slog.Logger) error {
	cfg.MySQL.LongStatements = true
	database, err := mysql.Open(ctx, cfg.MySQL, log)
	if err != nil {
		return err
	}
	defer database.Close()
	migrator, err := newMigrator(database, log)
	if err != nil {
		return err
	}
	return migrator.Up(ctx)
}

func newMigrator(database *sql.DB, log *slog.Logger) (*mysql.Migrator, error) {
	migrator, err := mysql.NewMigrator(database, store.Migrations)
	if err != nil {
		return nil, err
	}
	migrator.Log, migrator.Command = log, "messages migrate"
	return migrator, nil
}

// RenewEpoch begins a new life of the log, as a restore from a backup must: cursors from before may name events that
// the restored log lacks, so they are refused, and clients read their lists anew.
func RenewEpoch(ctx context.Context, cfg MigrateConfig, log *slog.Logger) error {
	database, err := mysql.Open(ctx, cfg.MySQL, log)
	if err != nil {
		return err
	}
	defer database.Close()
	var epoch store.Epoch
	// rand.Read never fails.
	_, _ = rand.Read(epoch.ID[:])
	_, _ = rand.Read(epoch.Key[:])
	if err := store.New(database).SetEpoch(ctx, epoch); err != nil {
		return err
	}
	log.InfoContext(ctx, "the log has a new epoch")
	return nil
}
