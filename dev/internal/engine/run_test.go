package engine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"chatapp.dev/internal/platform/mysqltest"
)

var dsnPattern = regexp.MustCompile(`^root@tcp\(127\.0\.0\.1:\d+\)/\?parseTime=true\n$`)

func TestRunWith(t *testing.T) {
	if TestEnv != mysqltest.EnvDSN {
		t.Errorf("TestEnv is %s, but mysqltest reads %s", TestEnv, mysqltest.EnvDSN)
	}
	out := filepath.Join(t.TempDir(), "out")
	err := RunWith(t.Context(), Options{Kind: MariaDB, Progress: t.Output()},
		"sh", "-c", `echo "$`+TestEnv+`" > "$0"; exit 7`, out)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit status 7", err)
	}
	dsn, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !dsnPattern.Match(dsn) {
		t.Errorf("the command saw the DSN %q", dsn)
	}
	if err := RunWith(t.Context(), Options{Kind: MariaDB}, "true"); err != nil {
		t.Errorf("a command that succeeds: %v", err)
	}
	if err := RunWith(t.Context(), Options{Kind: MariaDB}); err == nil {
		t.Error("no command is accepted")
	}
}
