// Package users is the service that owns accounts: who somebody is, how they prove it, and how others find them.
//
// What it acknowledges is committed in MySQL. It signs access tokens and publishes the keys that verify them, and needs
// nothing but its own keys to verify its callers. It keeps nothing in memory that another instance would miss: any
// number of them serve one schema, as long as all of them have the same keys.
//
// A session that was signed out is known by the list of revocations, from the commit on, and from Redis besides, if it is
// there. Its tokens must be refused by whoever faces the public: their signatures stay good.
package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/redisclient"
	"chatapp.dev/internal/platform/rpc"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/users/internal/janitor"
	"chatapp.dev/services/users/internal/password"
	"chatapp.dev/services/users/internal/revocation"
	"chatapp.dev/services/users/internal/service"
	"chatapp.dev/services/users/internal/store"
)

// minTokenTTL leaves a token good for longer than clocks differ and requests take.
const minTokenTTL = time.Minute

// Config are the settings of the service.
type Config struct {
	run.Common

	RPC      rpc.ServerConfig `embed:"" prefix:"rpc-"`
	MySQL    mysql.Config     `embed:"" prefix:"mysql-"`
	Password password.Config  `embed:"" prefix:"password-"`

	// SigningKeys is where the keys are that sign access tokens.
	SigningKeys KeysPath `required:"" placeholder:"PATH" help:"Ed25519 keys in PKCS #8 PEM that sign access tokens: a file, or a directory whose files are taken in reverse order of their names. The first key signs, all are published. 'users keys generate' makes one."`
	// TokenTTL is how long an access token is good. It is long because there are no refresh tokens yet: with them, a
	// token will live for minutes, and a session for as long as it is used.
	TokenTTL time.Duration `default:"12h" help:"How long an access token, and with it a session, is good (1m or more)."`

	Redis string `default:"redis://127.0.0.1:6379/0" help:"Redis that tells graph at once of sessions that are signed out, the same as graph's: redis://[user:password@]host:port/db, redis+sentinel://host:port,host:port/master or redis+cluster://host:port,host:port; rediss instead of redis for TLS. Without it graph finds them by asking."`

	// Development registers DevelopmentService.
	Development bool `help:"Offer the bulk calls that seeding and load tests need. Never in production: they let anybody act as anybody."`

	// Listener serves gRPC instead of the RPC listen address, when set.
	Listener net.Listener `kong:"-"`
	// AdminListener serves probes and keys instead of the admin listen address, when set.
	AdminListener net.Listener `kong:"-"`
}

// Validate names the first setting that is wrong.
func (c *Config) Validate() error {
	if c.TokenTTL < minTokenTTL {
		return run.Invalid(&c.TokenTTL, "must be %v or more, but is %v", minTokenTTL, c.TokenTTL)
	}
	if err := redisclient.CheckURL(c.Redis); err != nil {
		return run.Invalid(&c.Redis, "%v", err)
	}
	return nil
}

// KeysPath is a file or directory with Ed25519 keys, for identity.LoadKeys.
type KeysPath string

// UnmarshalText sets the path from text, or says why it leads to no keys.
func (p *KeysPath) UnmarshalText(text []byte) error {
	path := string(text)
	if path == "" {
		return errors.New("must be a file or directory with keys, but is empty")
	}
	if _, err := identity.LoadKeys(path); err != nil {
		return fmt.Errorf("must lead to keys, but does not: %w", err)
	}
	*p = KeysPath(path)
	return nil
}

// Run serves until ctx ends, and then stops in order: readiness, new calls, the calls under way, the revocations still to
// publish, the probes.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	keys, err := identity.LoadKeys(string(cfg.SigningKeys))
	if err != nil {
		return err
	}
	signer, err := identity.NewSigner(keys)
	if err != nil {
		return err
	}
	passwords, err := password.New(cfg.Password)
	if err != nil {
		return err
	}
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

	accounts := store.New(database)
	revocations := revocation.New(rdb, log)
	tokens := service.Tokens{Signer: signer, TTL: cfg.TokenTTL}
	public := service.PublicMethods()
	if cfg.Development {
		public = append(public, service.DevelopmentMethods()...)
	}
	server := rpc.NewServer(cfg.RPC, identity.NewVerifier(signer.Fetch), setOf(public), log)
	usersv1.RegisterUsersServiceServer(server, service.New(accounts, passwords, tokens, revocations, log))
	if cfg.Development {
		log.WarnContext(ctx, "development calls are offered: whoever reaches this service can act as anybody")
		usersv1.RegisterDevelopmentServiceServer(server, service.NewDevelopment(accounts, passwords, tokens, log))
	}
	admin := run.NewAdmin(log, map[string]run.Check{"mysql": database.PingContext})
	admin.Handle("GET /.well-known/jwks.json", service.KeysHandler(signer))

	listener, err := cfg.RPC.Listen.Open(cfg.Listener)
	if err != nil {
		return err
	}
	adminListener, err := cfg.AdminListen.Open(cfg.AdminListener)
	if err != nil {
		_ = listener.Close()
		return err
	}

	// The publisher ends after the last call, and the probes after everything.
	background, endBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer endBackground()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return admin.Serve(background, adminListener) })
	group.Go(func() error { return revocations.Run(background) })
	group.Go(func() error { return janitor.Run(ctx, accounts, log) })
	group.Go(func() error {
		defer endBackground()
		admin.SetReady(true)
		stop := context.AfterFunc(ctx, func() { admin.SetReady(false) })
		defer stop()
		return server.Serve(ctx, listener)
	})
	return group.Wait()
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// MigrateConfig are the settings of the command that changes the schema.
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
	migrator.Log, migrator.Command = log, "users migrate"
	return migrator, nil
}
