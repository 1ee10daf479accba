//go:build faults

package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
)

// Point is a place at which a test can kill or slow down the process.
func Point(name string) { process().point(name) }

// Dropped says whether a test wants what happens here to be left out.
func Dropped(name string) bool { return process().dropped(name) }

// process returns the faults of this process, as its environment lists them at the first pass of anything.
var process = sync.OnceValue(func() *injector {
	in, err := newInjector(os.Getenv("CHATAPP_FAULTS"), os.Getenv("CHATAPP_FAULTS_FILE"))
	if err != nil {
		panic(err)
	}
	return in
})

// injector holds the faults that are to be injected.
type injector struct {
	list string // Holds while there is no file.
	path string // Empty when there never is one.

	mu      sync.Mutex
	faults  map[string]*faults
	version version
}

// faults are those of one name. A zero field is an action that is not wanted.
type faults struct {
	killAt int           // The pass of Point that kills.
	passes int           // The passes of Point so far.
	sleep  time.Duration // What a pass of Point takes longer.
	drops  int           // How many passes of Dropped are still to be dropped; all when negative.
}

// version tells one content of the file from the next, and from its absence. The size is part of it because two writes
// within one tick of the file system's clock leave the same time.
type version struct {
	exists   bool
	modified time.Time
	size     int64
}

func newInjector(list, path string) (*injector, error) {
	faults, err := parse(list)
	if err != nil {
		return nil, fmt.Errorf("CHATAPP_FAULTS: %w", err)
	}
	in := &injector{list: list, path: path, faults: faults}
	if err := in.reload(); err != nil {
		return nil, err
	}
	return in, nil
}

func (in *injector) point(name string) {
	time.Sleep(in.pass(name))
}

// pass counts a pass of Point, which it may not survive, and returns how long it is to take.
func (in *injector) pass(name string) time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := in.find(name)
	if f == nil {
		return 0
	}
	f.passes++
	if f.passes == f.killAt {
		kill()
	}
	return f.sleep
}

func (in *injector) dropped(name string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := in.find(name)
	if f == nil || f.drops == 0 {
		return false
	}
	if f.drops > 0 {
		f.drops--
	}
	return true
}

// find returns the faults of a name, or nil, by the newest list. The caller holds mu.
func (in *injector) find(name string) *faults {
	if err := in.reload(); err != nil {
		fmt.Fprintln(os.Stderr, "fault:", err)
	}
	return in.faults[name]
}

// reload takes over the file's list if it changed.
func (in *injector) reload() error {
	if in.path == "" {
		return nil
	}
	var now version
	info, err := os.Stat(in.path)
	switch {
	case err == nil:
		now = version{exists: true, modified: info.ModTime(), size: info.Size()}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("CHATAPP_FAULTS_FILE: %w", err)
	}
	if now == in.version {
		return nil
	}
	list := in.list
	if now.exists {
		content, err := os.ReadFile(in.path)
		if err != nil {
			return fmt.Errorf("CHATAPP_FAULTS_FILE: %w", err)
		}
		list = string(content)
	}
	in.version = now
	faults, err := parse(list)
	if err != nil {
		return fmt.Errorf("CHATAPP_FAULTS_FILE %s: %w", in.path, err)
	}
	in.faults = faults
	return nil
}

// parse reads a list of faults.
func parse(list string) (map[string]*faults, error) {
	parsed := make(map[string]*faults)
	entries := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	for _, entry := range entries {
		name, action, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not name=action", entry)
		}
		f := parsed[name]
		if f == nil {
			f = &faults{}
			parsed[name] = f
		}
		if err := f.add(action); err != nil {
			return nil, fmt.Errorf("%q: %w", entry, err)
		}
	}
	return parsed, nil
}

// add reads one action.
func (f *faults) add(action string) error {
	verb, argument, given := strings.Cut(action, ":")
	var err error
	switch {
	case verb == "kill" && !given:
		f.killAt = 1
	case verb == "kill":
		f.killAt, err = positive(argument)
	case verb == "drop" && !given:
		f.drops = -1
	case verb == "drop":
		f.drops, err = positive(argument)
	case verb == "sleep" && given:
		f.sleep, err = time.ParseDuration(argument)
	default:
		err = errors.New("want kill, kill:N, drop, drop:N or sleep:DURATION")
	}
	return err
}

func positive(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, err
	}
	if n < 1 {
		return 0, fmt.Errorf("%d is not a count", n)
	}
	return n, nil
}

// kill ends the process as a crash of its machine would: no deferred call, no flush, no farewell.
func kill() {
	err := syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	panic(fmt.Sprintf("the process survived SIGKILL: %v", err))
}
