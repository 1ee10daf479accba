package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// TestEnv is the environment variable from which tests take the server that they use (see package mysqltest).
const TestEnv = "CHATAPP_TEST_MYSQL_DSN"

// runGrace is how long a command may take to end when the context has ended.
const runGrace = 20 * time.Second

// RunWith opens a database, runs a command with this process's standard streams and TestEnv naming the database's server,
// and closes the database. When ctx ends, the command gets SIGTERM. The error of a command that failed is an
// *exec.ExitError, wrapped.
func RunWith(ctx context.Context, opts Options, command ...string) (err error) {
	if len(command) == 0 {
		return errors.New("no command to run is given")
	}
	e, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if opts.Progress != nil {
		fmt.Fprintf(opts.Progress, "The database is %s.\n", e.Name())
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), TestEnv+"="+e.DSN(""))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = runGrace
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}
