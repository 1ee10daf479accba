package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asProgram is set in the environment of a test's copy that is to be the program.
const asProgram = "CHATAPP_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main() // Which exits.
	}
	os.Exit(m.Run())
}

// command returns the program with arguments, to be run in a folder.
func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asProgram+"=yes")
	return cmd
}

// finished is how a program ended.
type finished struct {
	code           int
	stdout, stderr string
}

// finish runs the program to its end.
func finish(t *testing.T, dir string, args ...string) finished {
	t.Helper()
	cmd := command(t, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return finished{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// runner is a running `chatapp run`.
type runner struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string // Where it runs; its data folder is .chatapp there.
	lines  *bufio.Reader
	stderr bytes.Buffer
	output strings.Builder // What was read of its standard output.
}

// startRun starts `chatapp run` on MariaDB and a free port in a folder, and returns when it serves.
func startRun(t *testing.T, dir string, args ...string) *runner {
	t.Helper()
	args = append([]string{"run", "--listen=127.0.0.1:0", "--engine=mariadb"}, args...)
	r := &runner{t: t, cmd: command(t, dir, args...), dir: dir}
	r.cmd.Stderr = &r.stderr
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.lines = bufio.NewReader(stdout)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	r.await("  data ")
	return r
}

// startDemo is startRun with --demo, and returns when the examples are printed.
func startDemo(t *testing.T, dir string) *runner {
	t.Helper()
	r := startRun(t, dir, "--demo")
	r.await("3. ")
	return r
}

// await reads the output up to a line that begins so.
func (r *runner) await(prefix string) {
	r.t.Helper()
	for {
		line, err := r.lines.ReadString('\n')
		r.output.WriteString(line)
		if err != nil {
			r.t.Fatalf("the program ended without a line %q; it wrote\n%s%s", prefix, r.output.String(), r.stderr.String())
		}
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
}

// signal sends the program a signal.
func (r *runner) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// end waits for the program's end.
func (r *runner) end() finished {
	r.t.Helper()
	rest, err := io.ReadAll(r.lines)
	if err != nil {
		r.t.Error(err)
	}
	r.output.Write(rest)
	_ = r.cmd.Wait() // The code says it.
	return finished{code: r.cmd.ProcessState.ExitCode(), stdout: r.output.String(), stderr: r.stderr.String()}
}

// stop ends the program with Ctrl-C, which must be clean.
func (r *runner) stop() {
	r.t.Helper()
	r.signal(syscall.SIGINT)
	got := r.end()
	if got.code != 0 || got.stderr != "" || !strings.HasSuffix(got.stdout, "is there at the next start.\n") {
		r.t.Errorf("Ctrl-C: got code %d and\n%s%s", got.code, got.stdout, got.stderr)
	}
	if _, err := os.Stat(filepath.Join(r.dir, ".chatapp", "run.json")); err == nil {
		r.t.Error("run.json is still there")
	}
}

// system returns where the program serves.
func (r *runner) system() system {
	r.t.Helper()
	s, err := findSystem(filepath.Join(r.dir, ".chatapp"))
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}
