package engine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// isolateCache gives the test a cache folder of its own, but leaves Go the build cache that it has.
func isolateCache(t *testing.T) {
	t.Helper()
	goCache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	t.Setenv("GOCACHE", strings.TrimSpace(string(goCache)))
	t.Setenv("XDG_CACHE_HOME", cache)
	if got, err := os.UserCacheDir(); err != nil || got != cache {
		t.Setenv("HOME", cache) // The cache folder derives from it elsewhere than on Linux.
	}
}

func TestTiDBIsBuiltOnceByManyAtOnce(t *testing.T) {
	if _, err := buildTiDB(t.Context(), t.Output()); err != nil { // Fills the build cache of Go, which may take minutes.
		t.Fatal(err)
	}
	isolateCache(t)
	var mu sync.Mutex
	built := map[string]int{} // Programs, and how many callers said that they built one.
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var shown bytes.Buffer
			program, err := buildTiDB(t.Context(), &shown)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			built[program] += strings.Count(shown.String(), "TiDB is built")
		})
	}
	wg.Wait()
	if len(built) != 1 {
		t.Fatalf("programs %v, want one", built)
	}
	for program, times := range built {
		if times != 1 {
			t.Errorf("built %d times, want once", times)
		}
		files, err := os.ReadDir(filepath.Dir(program))
		if err != nil || len(files) != 2 { // The program and the lock.
			t.Errorf("left in the folder: %v, %v", files, err)
		}
		if out, err := exec.Command(program, "--port", "0").CombinedOutput(); err == nil {
			t.Errorf("%s --port 0 succeeds: %s", program, out)
		}
	}
}

func TestCanceledBuildLeavesNoProgram(t *testing.T) {
	isolateCache(t)
	source, err := tidbSource()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tidbKey(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := buildTiDB(ctx, cancelAt{"Building TiDB", cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cache, "chatapp", "tidb-"+key, "tidb")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a program (%v)", err)
	}
}

func TestACommandThatIsCanceledSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "echo working >&2; exec sleep 60")
	if err := watch(ctx, cmd, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// cancelAt is a writer that cancels when it is shown a text.
type cancelAt struct {
	text   string
	cancel context.CancelFunc
}

func (c cancelAt) Write(p []byte) (int, error) {
	if strings.Contains(string(p), c.text) {
		c.cancel()
	}
	return len(p), nil
}

func TestTiDBKeyChangesWithTheSource(t *testing.T) {
	source, err := tidbSource()
	if err != nil {
		t.Fatal(err)
	}
	changed := t.TempDir()
	if err := os.CopyFS(changed, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	original, err := tidbKey(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{original: "the original"}
	for _, name := range []string{"", "main.go", "go.mod", "go.sum"} {
		if name != "" {
			f, err := os.OpenFile(filepath.Join(changed, name), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		key, err := tidbKey(t.Context(), changed)
		if err != nil {
			t.Fatal(err)
		}
		if name == "" {
			if key != original {
				t.Errorf("a copy of the source has the key %s, want %s", key, original)
			}
		} else if seen[key] != "" {
			t.Errorf("the key stays that of %s when %s changes", seen[key], name)
		}
		seen[key] = name
	}
}

func TestTiDBSourceIsFoundFromInsideTheRepository(t *testing.T) {
	want, err := tidbSource()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := findTiDBSource(filepath.Join(want, "..", "internal", "engine")); err != nil || got != filepath.Clean(want) {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if got, err := findTiDBSource(t.TempDir()); err == nil {
		t.Errorf("found %s from outside the repository", got)
	}
}

func TestWatch(t *testing.T) {
	tests := []struct {
		name, script string
		wantLines    int
		wantErr      string
	}{
		{"success", "echo a >&2; echo b >&2; echo ignored", 2, ""},
		{"failure", "echo a >&2; echo why it failed >&2; exit 3", 2, "why it failed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var lines int
			err := watch(t.Context(), exec.Command("sh", "-c", test.script), func(string) { lines++ })
			if lines != test.wantLines {
				t.Errorf("saw %d lines, want %d", lines, test.wantLines)
			}
			switch {
			case test.wantErr == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)):
				t.Errorf("got %v, want an error with %q", err, test.wantErr)
			}
		})
	}
}
