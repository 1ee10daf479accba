//go:build faults

package fault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func newTestInjector(t *testing.T, list, path string) *injector {
	t.Helper()
	in, err := newInjector(list, path)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// drops returns what a number of passes of Dropped say, such as "110".
func drops(in *injector, name string, passes int) string {
	var said strings.Builder
	for range passes {
		if in.dropped(name) {
			said.WriteByte('1')
		} else {
			said.WriteByte('0')
		}
	}
	return said.String()
}

func TestDropped(t *testing.T) {
	tests := []struct {
		list, want string
	}{
		{"", "0000"},
		{"hint=drop", "1111"},
		{"hint=drop:1", "1000"},
		{"other=drop, hint=drop:3", "1110"},
		{"other=drop", "0000"},
		{"hint=kill", "0000"}, // Dropped kills nobody.
		{"hint=drop:2\nhint=kill\n", "1100"},
	}
	for _, tt := range tests {
		if got := drops(newTestInjector(t, tt.list, ""), "hint", len(tt.want)); got != tt.want {
			t.Errorf("%q: Dropped said %s, want %s", tt.list, got, tt.want)
		}
	}
}

func TestPointSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newTestInjector(t, "slow=sleep:100ms,slow=drop", "")
		for _, tt := range []struct {
			name string
			want time.Duration
		}{{"slow", 100 * time.Millisecond}, {"slow", 100 * time.Millisecond}, {"other", 0}} {
			start := time.Now()
			in.point(tt.name)
			if took := time.Since(start); took != tt.want {
				t.Errorf("Point(%q) took %v, want %v", tt.name, took, tt.want)
			}
		}
	})
}

func TestListsThatCannotBeUnderstood(t *testing.T) {
	for _, list := range []string{
		"kill", "=kill", "a=", "a=explode", "a=kill:0", "a=kill:x", "a=kill:", "a=drop:-1", "a=drop:x", "a=sleep",
		"a=sleep:5", "b=kill,a",
	} {
		if _, err := newInjector(list, ""); err == nil {
			t.Errorf("%q was taken", list)
		}
	}
}

func TestFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults")
	write := func(list string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	touch := func(at time.Time) {
		t.Helper()
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}

	in := newTestInjector(t, "hint=drop", path)
	steps := []struct {
		when string
		do   func()
		want string
	}{
		{"no file yet: the variable holds", func() {}, "111"},
		{"an empty file ends its faults", func() { write("") }, "000"},
		{"a list in the file", func() { write("hint=drop:2\n") }, "110"},
		{"the same list, unchanged", func() {}, "000"},
		{"the same list, written again", func() { touch(time.Now().Add(time.Hour)) }, "110"},
		{"a list that cannot be understood leaves the one before", func() {
			write("hint=drop:1")
			in.dropped("another name, so that this list is read")
			write("hint")
		}, "100"},
		{"no file again: the variable holds", func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, "111"},
	}
	for _, step := range steps {
		step.do()
		if got := drops(in, "hint", 3); got != step.want {
			t.Errorf("%s: Dropped said %s, want %s", step.when, got, step.want)
		}
	}
}

func TestFileThatCannotBeUnderstoodEndsTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults")
	if err := os.WriteFile(path, []byte("hint"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newInjector("", path); err == nil {
		t.Error("the list was taken")
	}
}

// TestKill runs this test binary again as the process to be killed.
func TestKill(t *testing.T) {
	if os.Getenv("CHATAPP_FAULTS") != "" {
		for range 3 {
			os.Stdout.WriteString("pass\n")
			Point("place")
		}
		return
	}
	tests := []struct {
		list   string
		killed bool
		passes int
	}{
		{"place=kill", true, 1},
		{"place=kill:3", true, 3},
		{"place=kill:4", false, 3},
		{"other=kill", false, 3},
		{"place=drop", false, 3},
	}
	for _, tt := range tests {
		t.Run(tt.list, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestKill$")
			child.Env = append(os.Environ(), "CHATAPP_FAULTS="+tt.list)
			out, err := child.Output()
			var exit *exec.ExitError
			killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			if killed != tt.killed || (err != nil && !killed) {
				t.Errorf("the process ended with %v, want killed: %v", err, tt.killed)
			}
			if passes := strings.Count(string(out), "pass\n"); passes != tt.passes {
				t.Errorf("it reached the place %d times, want %d", passes, tt.passes)
			}
		})
	}
}
