package main

import (
	"context"
	"log/slog"
	"os"

	"chatapp.dev/dev/internal/engine"
	"chatapp.dev/internal/platform/run"
)

// withTiDBCommand is chatapp with-tidb.
type withTiDBCommand struct {
	run.Logging

	Command []string `arg:"" passthrough:"" help:"The command and its arguments, after --."`
}

// Run fails when the command does.
func (w *withTiDBCommand) Run(ctx context.Context, log *slog.Logger) error {
	command := w.Command
	if command[0] == "--" {
		command = command[1:]
	}
	return engine.RunWith(ctx, engine.Options{Kind: engine.TiDB, Progress: os.Stderr, Log: log}, command...)
}
