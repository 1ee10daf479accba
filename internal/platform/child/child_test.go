package child

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary act as a parent that starts a child and can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("CHILD_TEST_PARENT") != "" {
		p, err := Start(exec.Command("sleep", "1000"))
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(p.Pid()) + "\n")
		// The thread that started the child must not be one that the runtime ends.
		for range 100 {
			go func() { runtime.LockOSThread() }() // A locked goroutine that returns ends its thread.
		}
		select {}
	}
	os.Exit(m.Run())
}

func TestStop(t *testing.T) {
	tests := []struct {
		name   string
		script string
		stop   func(*Process) error
		signal syscall.Signal // That ended the process; 0 when it exited.
	}{
		{"ends on SIGTERM", "exec sleep 1000", func(p *Process) error { return p.Stop(time.Minute) }, syscall.SIGTERM},
		{
			"exits cleanly on SIGTERM", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done",
			func(p *Process) error { return p.Stop(time.Minute) }, 0,
		},
		{
			"is killed when it ignores SIGTERM", "trap '' TERM; echo ready; while :; do sleep 0.01; done",
			func(p *Process) error { return p.Stop(50 * time.Millisecond) }, syscall.SIGKILL,
		},
		{"is killed", "exec sleep 1000", (*Process).Kill, syscall.SIGKILL},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", test.script)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.Stdout = w
			p, err := Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			if strings.Contains(test.script, "ready") {
				if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			if !p.Running() {
				t.Fatal("not running after Start")
			}
			if err := test.stop(p); err != nil {
				t.Fatal(err)
			}
			if p.Running() {
				t.Error("still running")
			}
			var exit *exec.ExitError
			err = p.Wait()
			switch {
			case test.signal == 0 && err != nil:
				t.Errorf("Wait: %v, want no error", err)
			case test.signal == 0:
			case !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != test.signal:
				t.Errorf("Wait: %v, want signal %v", err, test.signal)
			}
			if err := errors.Join(p.Stop(time.Minute), p.Kill()); err != nil {
				t.Errorf("stop after the end: %v", err)
			}
		})
	}
}

func TestStartOfMissingProgram(t *testing.T) {
	if _, err := Start(exec.Command("/does/not/exist")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want one that wraps os.ErrNotExist", err)
	}
}

func TestChildDiesWithKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux can do that")
		return
	}
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "CHILD_TEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // Let the parent end many threads; the child must not mind.
	if !alive(pid) {
		t.Fatal("the child died with a thread of its parent")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // It reports the signal.
	for deadline := time.Now().Add(10 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlives its parent", pid)
		}
	}
}

// alive reports whether a process runs; one that ended but that nobody has waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestFreePort(t *testing.T) {
	seen := map[int]bool{}
	for range 20 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if port < 20000 || port >= 32000 {
			t.Errorf("port %d may be given to an outgoing connection", port)
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Errorf("port is not free: %v", err)
			continue
		}
		defer l.Close()
		if seen[port] {
			t.Errorf("port %d given while it is listened on", port)
		}
		seen[port] = true
	}
}
