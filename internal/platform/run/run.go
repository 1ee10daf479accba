// Package run is what every program of ours does around its work: it reads settings from flags and the environment,
// logs, sets up telemetry, answers signals and serves probes.
//
// It guarantees that a wrong setting ends the program before anything is opened or listened on, with exit code 2 and
// one line that names the flag, the variable and what they take, and that a signal ends the context of the running
// command, so that the command decides how to stop. A second signal ends the process at once: whatever the first one
// was still finishing is lost.
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"chatapp.dev/internal/platform/telemetry"
)

// The exit codes of [Main].
const (
	exitOK      = 0
	exitFailure = 1   // The command failed; the last line of the log says why.
	exitUsage   = 2   // A setting or argument is wrong (see Invalid); one line on stderr says which.
	exitSignal  = 130 // A second signal came before the command had stopped.
)

// flushTimeout bounds how long a finished program waits for its last spans and metrics to be exported.
const flushTimeout = 5 * time.Second

// Main runs the program called name and exits the process. It parses flags and environment variables into cli, a
// pointer to a struct in kong's grammar, and calls the method Run of the selected command. Run may take, in any order,
// a context.Context that ends with SIGINT or SIGTERM, a *slog.Logger, a *[Common] and a pointer to cli.
//
// Every flag can be set by an environment variable too: --log-level of users is USERS_LOG_LEVEL. A command that
// embeds [Logging] or [Common] decides how the program logs. The flags --help and --version are added to every
// program. Vars fill the ${name} places of the struct tags.
func Main(name, description string, cli any, vars ...kong.Vars) {
	tuneCollector()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	p := process{
		args:    os.Args[1:],
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		signals: signals,
		exit:    os.Exit,
	}
	os.Exit(p.run(name, description, cli, vars))
}

// process is what a program has from its operating system.
type process struct {
	args           []string
	stdout, stderr io.Writer
	signals        <-chan os.Signal
	exit           func(code int)
}

// run is Main up to the process's exit code.
func (p *process) run(name, description string, cli any, vars []kong.Vars) int {
	var chosen settings
	parser, err := newParser(name, cli, vars,
		kong.Description(description),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(p.exit),
		kong.Bind(&chosen),
	)
	if err != nil {
		// Only a mistake in the program's own struct tags leads here.
		panic(fmt.Sprintf("run: the settings of %s are declared wrongly: %v", name, err))
	}
	command, err := parser.parse(p.args)
	if err != nil {
		fmt.Fprintf(p.stderr, "%s: %s\n", name, oneLine(err.Error()))
		return exitUsage
	}

	log := telemetry.Logger(chosen.logging.LogLevel, chosen.logging.LogFormat, p.stderr)
	slog.SetDefault(log)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	finished := make(chan struct{})
	defer close(finished)
	go p.watchSignals(finished, cancel, log)

	flush, err := telemetry.Setup(ctx, name, log)
	if err != nil {
		fmt.Fprintf(p.stderr, "%s: %s\n", name, oneLine(err.Error()))
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run(log, &chosen.common)

	// The context may have ended already; what is queued is still worth sending.
	flushCtx, done := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer done()
	if flushErr := flush(flushCtx); flushErr != nil {
		log.Warn("the last spans or metrics were not exported", "err", flushErr)
	}

	var stopped signalError
	setting := parser.setting(command, err)
	switch {
	case err == nil:
		return exitOK
	case setting != nil:
		fmt.Fprintf(p.stderr, "%s: %s\n", name, oneLine(setting.Error()))
		return exitUsage
	case errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &stopped):
		// Being told to stop is not a failure, even when the command reports it as one.
		return exitOK
	default:
		log.Error("failed", "command", command.Command(), "err", err)
		return exitFailure
	}
}

// watchSignals ends the context at the first signal and the process at the second.
func (p *process) watchSignals(finished <-chan struct{}, cancel context.CancelCauseFunc, log *slog.Logger) {
	select {
	case <-finished:
		return
	case sig := <-p.signals:
		log.Info("stopping; another signal stops at once", "signal", sig.String())
		cancel(signalError{sig})
	}
	select {
	case <-finished:
	case sig := <-p.signals:
		log.Warn("stopped before everything was finished", "signal", sig.String())
		p.exit(exitSignal)
	}
}

// signalError is why a context ended: somebody asked the program to stop.
type signalError struct{ signal os.Signal }

func (e signalError) Error() string { return "received signal " + e.signal.String() }

// oneLine keeps an error message on one line, whatever its parts hold.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// buildInfo is what --version prints.
func buildInfo(name string) string {
	return fmt.Sprintf("%s %s (%s, %s/%s)", name, telemetry.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
