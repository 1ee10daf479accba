// Command users serves accounts and access tokens, keeps their schema, and makes the keys that sign.
package main

import (
	"context"
	"log/slog"

	"github.com/alecthomas/kong"

	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/users"
)

type cli struct {
	Serve   serve   `cmd:"" help:"Serve until a signal comes."`
	Migrate migrate `cmd:"" help:"Bring the schema to the version that this program needs."`
	Keys    struct {
		Generate generate `cmd:"" help:"Write a fresh key to a new file that only its owner can read."`
	} `cmd:"" help:"The keys that sign access tokens."`
}

type serve struct{ users.Config }

func (s *serve) Run(ctx context.Context, log *slog.Logger) error {
	return users.Run(ctx, s.Config, log)
}

type migrate struct{ users.MigrateConfig }

func (m *migrate) Run(ctx context.Context, log *slog.Logger) error {
	return users.Migrate(ctx, m.MigrateConfig, log)
}

type generate struct {
	run.Logging

	File string `arg:"" help:"The file. One that is there already is kept. Names that ascend in time, such as 2026-01.pem, make the newest key of a directory the one that signs."`
}

func (g *generate) Run(ctx context.Context, log *slog.Logger) error {
	if err := identity.GenerateKeyFile(g.File); err != nil {
		return err
	}
	log.InfoContext(ctx, "signing key written", "file", g.File)
	return nil
}

func main() {
	run.Main("users", "Accounts and access tokens of ChatApp.", &cli{},
		kong.Vars{"admin_listen": ":9101", "grpc_listen": ":9001"})
}
