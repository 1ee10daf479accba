// Command graph serves ChatApp's GraphQL API.
package main

import (
	"context"
	"log/slog"

	"github.com/alecthomas/kong"

	"chatapp.dev/internal/platform/run"
	"chatapp.dev/services/graph"
)

type cli struct {
	Serve serve `cmd:"" help:"Serve until a signal comes."`
}

type serve struct{ graph.Config }

func (s *serve) Run(ctx context.Context, log *slog.Logger) error {
	return graph.Run(ctx, s.Config, log)
}

func main() {
	run.Main("graph", "The GraphQL API of ChatApp.", &cli{}, kong.Vars{"admin_listen": ":9108"})
}
