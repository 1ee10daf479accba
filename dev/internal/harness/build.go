package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"chatapp.dev/internal/platform/child"
)

// services are those that a stack consists of, in the order in which they start.
var services = []string{"users", "messages", "graph"}

// Flavour says how the services are built.
type Flavour struct {
	Race   bool // With the race detector.
	Faults bool // With the fault points of package fault.
}

// Programs are the built services. They stay as they were built whatever happens to the source.
type Programs struct {
	root string
	dir  *child.TempDir
}

// Build compiles the services from the source of the repository that the working directory is in, each module by itself
// as its image is built. Only what has changed since the last time is compiled.
func Build(ctx context.Context, flavour Flavour, log *slog.Logger) (*Programs, error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	dir, err := child.NewTempDir("chatapp-programs-")
	if err != nil {
		return nil, err
	}
	p := &Programs{root: root, dir: dir}
	for _, service := range services {
		begun := time.Now()
		args := []string{"-C", filepath.Join(root, "services", service), "build", "-o", dir.Path + string(filepath.Separator)}
		if flavour.Race {
			args = append(args, "-race")
		}
		if flavour.Faults {
			args = append(args, "-tags", "faults")
		}
		cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/"+service)...)
		cmd.Env = append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("build %s: %w\n%s", service, err, out), p.Remove())
		}
		log.Debug("service built", "service", service, "took", time.Since(begun).Round(time.Millisecond))
	}
	return p, nil
}

// Add compiles a further program of the repository, by the package's folder in its module.
func (p *Programs) Add(ctx context.Context, module, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "-C", filepath.Join(p.root, module),
		"build", "-o", p.dir.Path+string(filepath.Separator), pkg)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Remove deletes the programs.
func (p *Programs) Remove() error { return p.dir.Remove() }

// Path returns where a service's program is.
func (p *Programs) Path(service string) string { return filepath.Join(p.dir.Path, service) }

// Run runs a command of a service to its end, such as "users", "migrate". Its error holds what the command wrote.
func (p *Programs) Run(ctx context.Context, env []string, service string, args ...string) error {
	out, err := p.Command(ctx, env, service, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", service, strings.Join(args, " "), err, out)
	}
	return nil
}

// Command returns a command of a service that is not started yet. It sees no settings but those given.
func (p *Programs) Command(ctx context.Context, env []string, service string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.Path(service), args...)
	cmd.Env = append(cleanEnv(), env...)
	cmd.WaitDelay = time.Second
	return cmd
}

// cleanEnv is this process's environment without anything that would change a service.
func cleanEnv() []string {
	var env []string
	for _, variable := range os.Environ() {
		switch prefix, _, _ := strings.Cut(variable, "_"); prefix {
		case "USERS", "MESSAGES", "GRAPH", "CHATAPP", "OTEL":
		default:
			env = append(env, variable)
		}
	}
	return env
}

// repositoryRoot returns the folder of the repository that the working directory is in.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "services", "graph", "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory is not in ChatApp's repository, whose services are to be built")
		}
		dir = parent
	}
}
