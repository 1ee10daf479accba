// Command messages serves conversations and messages, and keeps their schema.
package main

import (
	"context"
	"log/slog"

	"github.com/alecthomas/kong"

	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/messages"
)

type cli struct {
	Serve   serve   `cmd:"" help:"Serve until a signal comes."`
	Migrate migrate `cmd:"" help:"Bring the schema to the version that this program needs."`
	Epoch   struct {
		Renew renew `cmd:"" help:"Refuse every cursor given out so far. Run it after a restore from a backup, with the service stopped."`
	} `cmd:"" help:"The life of the log that cursors belong to."`
}

type serve struct{ messages.Config }

func (s *serve) Run(ctx context.Context, log *slog.Logger) error {
	return messages.Run(ctx, s.Config, log)
}

type migrate struct{ messages.MigrateConfig }

func (m *migrate) Run(ctx context.Context, log *slog.Logger) error {
	return messages.Migrate(ctx, m.MigrateConfig, log)
}

type renew struct{ messages.MigrateConfig }

func (r *renew) Run(ctx context.Context, log *slog.Logger) error {
	return messages.RenewEpoch(ctx, r.MigrateConfig, log)
}

func main() {
	run.Main("messages", "Conversations, messages and event logs of ChatApp.", &cli{},
		kong.Vars{"admin_listen": ":9102", "grpc_listen": ":9002"})
}
