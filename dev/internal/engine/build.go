package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"chatapp.dev/dev/internal/progress"
	"chatapp.dev/internal/platform/filelock"
)

// buildTiDB returns the path of dev/tidb's program, which it builds unless the user's cache folder has it. The build takes
// minutes; of several processes that need it at once, one builds and the others wait.
func buildTiDB(ctx context.Context, output io.Writer) (string, error) {
	source, err := tidbSource()
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "", fmt.Errorf("TiDB is built by Go, which is not in PATH: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder for TiDB's program: %w", err)
	}
	key, err := tidbKey(ctx, source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "chatapp", "tidb-"+key)
	program := filepath.Join(dir, "tidb")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the cache folder for TiDB's program: %w", err)
	}
	shown := progress.New(output)
	defer shown.Close()
	lock, err := waitForBuild(ctx, filepath.Join(dir, "lock"), shown)
	if err != nil {
		return "", fmt.Errorf("wait for another build of TiDB: %w", err)
	}
	defer lock.Close()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	shown.Say("Building TiDB, once: it takes minutes, 7 or so on two cores. (An installed MariaDB makes it needless.)")
	unfinished := program + ".unfinished" // Only the holder of the lock touches it.
	if err := compile(ctx, source, unfinished, shown); err != nil {
		return "", err
	}
	if err := os.Rename(unfinished, program); err != nil {
		return "", fmt.Errorf("put TiDB's program in place: %w", err)
	}
	shown.Finish("TiDB is built")
	return program, nil
}

func waitForBuild(ctx context.Context, path string, shown *progress.Display) (*filelock.Lock, error) {
	lock, err := filelock.Try(path)
	if !errors.Is(err, filelock.ErrHeld) {
		return lock, err
	}
	shown.Set("waiting for another process that builds TiDB")
	return filelock.Wait(ctx, path)
}

// tidbSource finds the folder of dev/tidb: where this file was compiled, or else in the repository around the working
// directory, for a binary built with -trimpath or a repository that has moved.
func tidbSource() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok {
		if dir := filepath.Join(filepath.Dir(file), "..", "..", "tidb"); isTiDBSource(dir) {
			return dir, nil
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the source of dev/tidb: %w", err)
	}
	return findTiDBSource(dir)
}

// findTiDBSource finds the folder of dev/tidb in the repository that dir is in.
func findTiDBSource(dir string) (string, error) {
	for {
		if source := filepath.Join(dir, "dev", "tidb"); isTiDBSource(source) {
			return source, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the source of dev/tidb is not found: start from inside the repository, or install MariaDB")
		}
		dir = parent
	}
}

func isTiDBSource(dir string) bool {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && bytes.HasPrefix(mod, []byte("module chatapp.dev/dev/tidb\n"))
}

// tidbKey hashes all that the program is made of.
func tidbKey(ctx context.Context, source string) (string, error) {
	version, err := goCommand(ctx, source, "env", "GOVERSION", "GOOS", "GOARCH").Output()
	if err != nil {
		return "", fmt.Errorf("ask Go for its version: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	h.Write(version)
	for _, path := range append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")) {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the source of dev/tidb: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(path), len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// goCommand makes a go command for the module in dir. The module is not in the workspace and needs no C compiler, and
// flags meant for other builds (the race detector, say) would only make it larger.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false")
	// Ctrl-C at a terminal must end the build through ctx alone, and with all the compilers that it has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// compile builds the module in source into the file program and shows how far it is.
func compile(ctx context.Context, source, program string, shown *progress.Display) error {
	var packages int
	var downloads int
	list := goCommand(ctx, source, "list", "-deps", ".")
	var names bytes.Buffer
	list.Stdout = &names
	if err := watch(ctx, list, func(line string) {
		if strings.HasPrefix(line, "go: downloading ") {
			downloads++
			shown.Set(fmt.Sprintf("downloading the source: %d modules", downloads))
		}
	}); err != nil {
		return err
	}
	packages = bytes.Count(names.Bytes(), []byte("\n"))

	// Go prints a package when it begins to compile it, and none that its cache holds.
	var compiled int
	shown.Set("compiling")
	return watch(ctx, goCommand(ctx, source, "build", "-v", "-ldflags=-s -w", "-o", program, "."), func(line string) {
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			downloads++
			shown.Set(fmt.Sprintf("downloading the source: %d modules", downloads))
		case line == "chatapp.dev/dev/tidb":
			shown.Set("linking")
		default:
			compiled++
			shown.Set(fmt.Sprintf("compiling: %d of at most %d packages", compiled, packages))
		}
	})
}

// watch runs a command of ctx and hands the lines that it writes to its standard error to see. The error of a command that
// fails contains the last of them.
func watch(ctx context.Context, cmd *exec.Cmd, see func(line string)) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	const keep = 20
	var last []string
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		see(lines.Text())
		if last = append(last, lines.Text()); len(last) > keep {
			last = slices.Delete(last, 0, 1)
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", cmd, ctx.Err())
		}
		return fmt.Errorf("%s in %s: %w\n%s", cmd, cmd.Dir, err, strings.Join(last, "\n"))
	}
	return nil
}
