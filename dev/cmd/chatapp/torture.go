package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/torture"
	"chatapp.dev/internal/platform/run"
)

// tortureCommand is chatapp torture.
type tortureCommand struct {
	run.Logging

	For   time.Duration `default:"60s" help:"How long faults strike. Each strikes at least once, however short it is."`
	Users int           `default:"12" help:"How many people talk: 2 or more."`
	Rate  int           `default:"60" help:"How many messages they send in a second, all together, while nothing is broken."`
	Seed  uint64        `help:"What decides by chance which fault strikes when and whom. 0 takes another one each time."`
	Race  bool          `help:"Build the services with the race detector."`
	Break string        `placeholder:"NAME" help:"Break the services on purpose, and expect the checker to notice: sweeper, gap-check, head-check or live-before-replay."`
}

// Validate names the first setting that is wrong.
func (t *tortureCommand) Validate() error {
	switch {
	case t.For <= 0:
		return run.Invalid(&t.For, "must be more than 0, such as 60s")
	case t.Users < 2:
		return run.Invalid(&t.Users, "must be 2 or more, but is %d", t.Users)
	case t.Rate < 1:
		return run.Invalid(&t.Rate, "must be 1 or more, but is %d", t.Rate)
	}
	if _, known := torture.Breaks[t.Break]; t.Break != "" && !known {
		return run.Invalid(&t.Break, "must be one of %s, but is %q", strings.Join(torture.BreakNames(), ", "), t.Break)
	}
	return nil
}

// Run tortures, and fails when something acknowledged was lost, doubled or out of order, or, with Break, when nobody
// noticed. The logs of the services are kept then.
func (t *tortureCommand) Run(ctx context.Context, log *slog.Logger) error {
	if t.Seed == 0 {
		t.Seed = rand.Uint64()
	}
	fmt.Println("building the services with fault points")
	programs, err := harness.Build(ctx, harness.Flavour{Race: t.Race, Faults: true}, log)
	if err != nil {
		return err
	}
	defer func() { _ = programs.Remove() }()
	dir, err := os.MkdirTemp("", "chatapp-torture-")
	if err != nil {
		return fmt.Errorf("make a folder for the logs: %w", err)
	}
	result, err := torture.Run(ctx, torture.Options{
		Programs: programs, Dir: dir, For: t.For, Users: t.Users, Rate: t.Rate, Seed: t.Seed, Break: t.Break,
		Out: os.Stdout, Log: log,
	})
	if err != nil {
		return fmt.Errorf("no verdict (seed %d, logs in %s): %w", t.Seed, dir, err)
	}
	result.Report(os.Stdout)
	found := len(result.Violations) > 0
	switch {
	case t.Break == "" && found:
		return fmt.Errorf("FAILED: %d violations (seed %d, logs in %s)", len(result.Violations), t.Seed, dir)
	case t.Break != "" && !found:
		return fmt.Errorf("FAILED: nobody noticed the broken %s (seed %d, logs in %s)", t.Break, t.Seed, dir)
	case t.Break != "":
		fmt.Printf("CAUGHT: the broken %s was noticed as %s\n", t.Break, kinds(result.Violations))
	default:
		fmt.Println("PASSED: nothing acknowledged was lost, doubled or out of order for anybody")
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the logs: %w", err)
	}
	return nil
}

// kinds lists what kinds of violations there are.
func kinds(violations []torture.Violation) string {
	var names []string
	for _, v := range violations {
		if !slices.Contains(names, string(v.Kind)) {
			names = append(names, string(v.Kind))
		}
	}
	return strings.Join(names, ", ")
}
