package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"chatapp.dev/internal/platform/child"
)

const (
	// readyTimeout bounds a start. It is long because a busy machine may start several stacks at once.
	readyTimeout = 60 * time.Second
	// stopTimeout is how long a process may take to stop by itself.
	stopTimeout = 30 * time.Second
	// portAttempts is how often a start is tried with other ports when somebody else has taken one.
	portAttempts = 5
)

// Process is one process of a service. It keeps its addresses, its log and its list of faults over all its lives.
// Its methods are for one goroutine at a time, but for Exited.
type Process struct {
	// Name is such as "messages-2".
	Name string
	// Service is such as "messages".
	Service string

	programs *Programs
	dir      string
	env      []string // Settings, but for the addresses.
	port     int
	admin    int

	mu      sync.Mutex
	current *child.Process
}

// newProcess returns a process that was never started.
func newProcess(programs *Programs, dir, service string, number int, env []string) *Process {
	return &Process{
		Name: service + "-" + strconv.Itoa(number), Service: service, programs: programs, dir: dir, env: env,
	}
}

// Addr is where the process serves.
func (p *Process) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// AdminAddr is where the process serves its probes.
func (p *Process) AdminAddr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.admin)) }

// LogFile is where everything is that the process has written in all its lives.
func (p *Process) LogFile() string { return filepath.Join(p.dir, p.Name+".log") }

// faultsFile holds the faults that are to strike the process.
func (p *Process) faultsFile() string { return filepath.Join(p.dir, p.Name+".faults") }

// Pid returns the process id of the current life, or of the last one.
func (p *Process) Pid() int { return p.life().Pid() }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	life := p.life()
	return life != nil && life.Running()
}

// Exited returns a channel that is closed when the current life ends.
func (p *Process) Exited() <-chan struct{} { return p.life().Done() }

func (p *Process) life() *child.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// Start starts the process, with more settings than its own in this life, and returns when it is ready.
func (p *Process) Start(ctx context.Context, env ...string) error {
	first := p.port == 0
	for attempt := 1; ; attempt++ {
		if first {
			var err error
			if p.port, err = child.FreePort(); err != nil {
				return err
			}
			if p.admin, err = child.FreePort(); err != nil {
				return err
			}
		}
		err := p.launch(ctx, env)
		// Nothing reserves a port that was free a moment ago.
		if err == nil || !first || attempt == portAttempts || !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

// errPortTaken marks a start that failed because another program listens on the port.
var errPortTaken = errors.New("the port is taken by another program")

func (p *Process) launch(ctx context.Context, env []string) error {
	if p.Running() {
		return fmt.Errorf("start %s: it runs already", p.Name)
	}
	log, err := os.OpenFile(p.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	defer log.Close()
	logStart, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	cmd := exec.Command(p.programs.Path(p.Service), "serve")
	cmd.Env = append(cleanEnv(), p.env...)
	cmd.Env = append(cmd.Env, p.addresses()...)
	cmd.Env = append(cmd.Env, "CHATAPP_FAULTS_FILE="+p.faultsFile())
	cmd.Env = append(cmd.Env, env...)
	cmd.Dir = p.dir
	cmd.Stdout, cmd.Stderr = log, log
	life, err := child.Start(cmd)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.current = life
	p.mu.Unlock()
	if err := p.awaitReady(ctx, life); err != nil {
		err = fmt.Errorf("start %s: %w; %s ends with:\n%s", p.Name, err, p.LogFile(), p.logSince(logStart))
		if bytes.Contains(p.logSince(logStart), []byte("address already in use")) {
			err = errors.Join(errPortTaken, err)
		}
		return errors.Join(err, life.Kill())
	}
	return nil
}

// addresses are the settings that make the process listen where it is expected.
func (p *Process) addresses() []string {
	if p.Service == "graph" {
		return []string{"GRAPH_LISTEN=" + p.Addr(), "GRAPH_ADMIN_LISTEN=" + p.AdminAddr()}
	}
	prefix := map[string]string{"users": "USERS_", "messages": "MESSAGES_"}[p.Service]
	return []string{prefix + "RPC_LISTEN=" + p.Addr(), prefix + "ADMIN_LISTEN=" + p.AdminAddr()}
}

func (p *Process) awaitReady(ctx context.Context, life *child.Process) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if p.ready(ctx) {
			return nil
		}
		select {
		case <-life.Done():
			return fmt.Errorf("it ended: %w", errors.Join(life.Wait(), errors.New("before it was ready")))
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (p *Process) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.AdminAddr()+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := probes.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// probes keeps no connection open: the next life is another process on the same port.
var probes = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   2 * time.Second,
}

// logSince returns the end of what was written to the log after a place.
func (p *Process) logSince(start int64) []byte {
	written, err := os.ReadFile(p.LogFile())
	if err != nil {
		return []byte(err.Error())
	}
	const keep = 4000
	written = written[min(start, int64(len(written))):]
	return bytes.TrimSpace(written[max(0, len(written)-keep):])
}

// Kill ends the process with SIGKILL.
func (p *Process) Kill() error { return p.life().Kill() }

// Stop asks the process to stop, and returns when it has. Its error says so if it had to be killed in the end.
func (p *Process) Stop() error {
	life := p.life()
	if err := life.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-life.Done():
		return nil
	case <-timer.C:
		return errors.Join(fmt.Errorf("%s did not stop within %v", p.Name, stopTimeout), life.Kill())
	}
}

// Pause suspends the process, as a machine does that swaps or a hypervisor that migrates, until Resume.
func (p *Process) Pause() error { return p.life().Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() error { return p.life().Signal(syscall.SIGCONT) }

// SetFaults makes a list of faults (see package fault) strike the process from now on; the empty list ends them.
// The process must be built with them.
func (p *Process) SetFaults(list string) error {
	next := p.faultsFile() + ".new"
	if err := os.WriteFile(next, []byte(list), 0o600); err != nil {
		return fmt.Errorf("write the faults of %s: %w", p.Name, err)
	}
	if err := os.Rename(next, p.faultsFile()); err != nil {
		return fmt.Errorf("write the faults of %s: %w", p.Name, err)
	}
	return nil
}

// findings returns what a process wrote that no process may: reports of the race detector, and panics.
func (p *Process) findings() error {
	log, err := os.ReadFile(p.LogFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the log of %s: %w", p.Name, err)
	}
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "panicked", "fatal error: "} {
		if at := bytes.Index(log, []byte(sign)); at >= 0 {
			const show = 4000
			return fmt.Errorf("%s wrote to %s:\n%s", p.Name, p.LogFile(), log[at:min(len(log), at+show)])
		}
	}
	return nil
}
