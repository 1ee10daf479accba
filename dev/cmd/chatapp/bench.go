package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"chatapp.dev/dev/internal/bench"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/run"
)

// benchCommand is chatapp bench.
type benchCommand struct {
	run.Logging

	Rounds int           `default:"5" help:"How often each thing is measured; medians are printed."`
	Round  time.Duration `default:"3s" help:"How long each time."`
	Only   []string      `enum:"delivery,send,history,cost,edge" placeholder:"SECTION,..." help:"Measure these sections only: ${enum}."`
	Dir    string        `placeholder:"PATH" help:"Where to make a temporary folder with the database, on the disk that is to be measured. The system's place for temporary folders by default."`
	JSON   bool          `name:"json" help:"Print the figures as JSON, and on standard error what is being done."`
}

// Validate names the first setting that is wrong.
func (b *benchCommand) Validate() error {
	switch {
	case b.Rounds < 1:
		return run.Invalid(&b.Rounds, "must be 1 or more, but is %d", b.Rounds)
	case b.Round < time.Second:
		return run.Invalid(&b.Round, "must be 1s or more, but is %v", b.Round)
	}
	return nil
}

// Run measures and prints the figures.
func (b *benchCommand) Run(ctx context.Context, log *slog.Logger) (err error) {
	progress := io.Writer(os.Stdout)
	if b.JSON {
		progress = os.Stderr
	}
	fmt.Fprintln(progress, "building the services")
	programs, err := harness.Build(ctx, harness.Flavour{}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, programs.Remove()) }()
	dir, err := os.MkdirTemp(b.Dir, "chatapp-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	report, err := bench.Run(ctx, bench.Options{
		Programs: programs, Dir: dir, Rounds: b.Rounds, Round: b.Round, Only: b.Only, Progress: progress, Log: log,
	})
	if err != nil {
		return err
	}
	if !b.JSON {
		report.Write(os.Stdout)
		return nil
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}
