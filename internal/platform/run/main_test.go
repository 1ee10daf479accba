package run

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// asProgram makes this test binary be the program that the tests below start and stop.
const asProgram = "RUN_TEST_AS_PROGRAM"

type stubbornCLI struct {
	Stubborn stubbornCommand `cmd:"" help:"Never stops."`
	Obedient obedientCommand `cmd:"" help:"Stops when it is told to."`
}

type stubbornCommand struct{}

func (stubbornCommand) Run(log *slog.Logger) error {
	log.Info("started")
	select {}
}

type obedientCommand struct{ Common }

func (obedientCommand) Run(ctx context.Context, log *slog.Logger) error {
	log.Info("started")
	<-ctx.Done()
	return nil
}

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		Main("program", "A program.", &stubbornCLI{})
	}
	os.Exit(m.Run())
}

// startProgram starts this binary as a program. The returned function waits for a line of its log that holds a text.
func startProgram(t *testing.T, args ...string) (cmd *exec.Cmd, awaitLine func(text string)) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	return cmd, func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the program ended without saying %q", text)
	}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		t.Fatal(err)
		return -1
	}
}

func TestOneSignalStopsAProgramInOrder(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		cmd, awaitLine := startProgram(t, "obedient")
		awaitLine("started")
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, cmd.Wait()); code != 0 {
			t.Errorf("%v: exit code %d", signal, code)
		}
	}
}

func TestASecondSignalStopsAProgramAtOnce(t *testing.T) {
	cmd, awaitLine := startProgram(t, "stubborn")
	awaitLine("started")
	for _, line := range []string{"stopping", "stopped before everything was finished"} {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		awaitLine(line)
	}
	if code := exitCode(t, cmd.Wait()); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}
