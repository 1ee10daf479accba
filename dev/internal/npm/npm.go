// Package npm runs the scripts of dev/clients with Node: the GraphQL clients and audits that people use come from npm, so
// that is how ChatApp is tested with them.
//
// Packages are installed once, exactly as the lock file says, and without running anything of theirs, into the user's
// cache folder. An installation appears whole or not at all, and processes that need it at the same time make one.
package npm

import (
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"chatapp.dev/dev/clients"
	"chatapp.dev/dev/internal/progress"
	"chatapp.dev/internal/platform/filelock"
)

// ErrNotInstalled says that this machine cannot run the scripts.
var ErrNotInstalled = errors.New("the tests with GraphQL clients need Node 20 or later and npm 9 or later; install them from " +
	"https://nodejs.org, or with `apt-get install nodejs npm` (Debian 13, Ubuntu 25.04 or later), `dnf install nodejs` (Fedora) " +
	"or `brew install node` (macOS)")

// What a program must be at least. The packages of dev/clients ask for this Node.
const (
	nodeMajor = 20
	npmMajor  = 9
)

// manifests decide what is installed.
var manifests = []string{"package.json", "package-lock.json"}

// waitDelay is how long a script's output is awaited after its end, which a process that it has left behind may hold.
const waitDelay = time.Second

// Install installs the packages of dev/clients, unless they are, and returns the folder with their node_modules. It
// shows progress while it works; a nil one shows it to nobody.
func Install(ctx context.Context, output io.Writer) (dir string, err error) {
	if output == nil {
		output = io.Discard
	}
	if err := check(ctx, "node", nodeMajor); err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder for the packages of npm: %w", err)
	}
	cache = filepath.Join(cache, "chatapp", "npm")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("make the cache folder for the packages of npm: %w", err)
	}
	key, err := hash(clients.Files, manifests)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := check(ctx, "npm", npmMajor); err != nil {
		return "", err
	}
	shown := progress.New(output)
	defer shown.Close()
	shown.Set("waiting for another process that installs the packages of npm")
	lock, err := filelock.Wait(ctx, dir+".lock")
	if err != nil {
		return "", fmt.Errorf("wait for another installation of the packages of npm: %w", err)
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	shown.Say("Installing the GraphQL clients from npm, once.")
	shown.Set("npm ci")
	if err := install(ctx, dir); err != nil {
		return "", err
	}
	shown.Finish("The GraphQL clients are installed")
	return dir, nil
}

// install makes the folder dir. The caller holds its lock.
func install(ctx context.Context, dir string) error {
	unfinished := dir + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("remove an unfinished installation: %w", err)
	}
	if err := write(unfinished, manifests); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = unfinished
	group(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", cmd, ctx.Err())
		}
		return fmt.Errorf("%s in %s: %w\n%s", cmd, unfinished, err, out)
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return fmt.Errorf("put the packages of npm in place: %w", err)
	}
	return nil
}

// Script is one run of a script.
type Script struct {
	// Name is the file's, such as "audit.mjs".
	Name string
	// Source is the text of a script that is no file of dev/clients, such as an example in the documentation.
	Source string
	Args   []string
	// Env are variables beside those of this process, such as "TOKEN=...". What is secret belongs here: others on the
	// machine can see the arguments.
	Env []string
}

// Run runs a script to its end, and returns what it has written to its standard output. The error of one that fails
// holds the end of what it wrote.
func Run(ctx context.Context, s Script) ([]byte, error) {
	cmd, err := Command(ctx, s)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w\n%s", s.Name, errors.Join(err, ctx.Err()), tail(stdout.Bytes(), stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// Command returns a run of a script that is not started yet, for a caller who talks with it. When ctx ends, it is
// killed. It installs the packages where they are missing.
func Command(ctx context.Context, s Script) (*exec.Cmd, error) {
	dir, err := Install(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	scripts, err := place(dir)
	if err != nil {
		return nil, err
	}
	script := []string{filepath.Join(scripts, s.Name)}
	if s.Source != "" {
		script = []string{"--input-type=module", "--eval", s.Source, "--"}
	} else if _, err := os.Stat(script[0]); err != nil {
		return nil, fmt.Errorf("there is no such script in dev/clients: %w", err)
	}
	cmd := exec.CommandContext(ctx, "node", append(script, s.Args...)...)
	cmd.Dir = scripts
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.WaitDelay = waitDelay
	group(cmd)
	return cmd, nil
}

// place returns a folder with the scripts of this program, below the one with node_modules, where Node looks for what
// they import. Scripts change more often than packages, so each version of them has a folder of its own.
func place(dir string) (string, error) {
	names, err := fs.Glob(clients.Files, "*.mjs")
	if err != nil {
		return "", err
	}
	key, err := hash(clients.Files, names)
	if err != nil {
		return "", err
	}
	scripts := filepath.Join(dir, "scripts-"+key)
	if _, err := os.Stat(scripts); err == nil {
		return scripts, nil
	}
	fresh, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the scripts: %w", err)
	}
	if err := write(fresh, names); err != nil {
		return "", errors.Join(err, os.RemoveAll(fresh))
	}
	if err := os.Rename(fresh, scripts); err != nil {
		// Another process may have been quicker.
		if _, missing := os.Stat(scripts); missing != nil {
			return "", errors.Join(fmt.Errorf("put the scripts in place: %w", err), os.RemoveAll(fresh))
		}
		return scripts, os.RemoveAll(fresh)
	}
	return scripts, nil
}

// write copies files of dev/clients into a folder.
func write(dir string, names []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range names {
		content, err := clients.Files.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// hash names the content of files.
func hash(files fs.FS, names []string) (string, error) {
	h := sha256.New()
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// check tells whether a program is here and new enough.
func check(ctx context.Context, program string, major int) error {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not in PATH: %w", program, ErrNotInstalled)
	}
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", program, err)
	}
	version := strings.TrimSpace(string(out))
	first, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if got, err := strconv.Atoi(first); err != nil || got < major {
		return fmt.Errorf("%s is %s: %w", program, version, ErrNotInstalled)
	}
	return nil
}

// group makes a command end with all that it has started, and leaves Ctrl-C at a terminal to this process.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// tail is the end of what a script wrote.
func tail(stdout, stderr []byte) []byte {
	const keep = 4000
	all := bytes.TrimSpace(append(bytes.Clone(stdout), stderr...))
	return all[max(0, len(all)-keep):]
}
