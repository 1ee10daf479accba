package npm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/dev/clients"
)

func TestThePackagesAreThoseOfTheManifest(t *testing.T) {
	out, err := Run(t.Context(), Script{Name: "versions.mjs"})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var manifest struct{ Dependencies map[string]string }
	raw, err := clients.Files.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(manifest.Dependencies, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// programs gives the test a PATH and a cache folder of its own. Each program is a shell script.
func programs(t *testing.T, scripts map[string]string) {
	t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!"+shell+"\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv("HOME", cache) // The cache folder derives from it elsewhere than on Linux.
}

func installed(t *testing.T) []string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(cache, "chatapp", "npm", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		if !strings.HasSuffix(path, ".lock") {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

const (
	newNode = `echo v24.1.0`
	newNPM  = `if [ "$1" = --version ]; then echo 11.0.0; else mkdir node_modules && echo "$@" >>../calls; fi`
)

func TestManyAtOnceInstallOnce(t *testing.T) {
	programs(t, map[string]string{"node": newNode, "npm": newNPM})
	var wg sync.WaitGroup
	dirs := make([]string, 4)
	for i := range dirs {
		wg.Go(func() {
			dir, err := Install(t.Context(), nil)
			if err != nil {
				t.Error(err)
			}
			dirs[i] = dir
		})
	}
	wg.Wait()
	for _, dir := range dirs {
		if dir != dirs[0] {
			t.Errorf("installed in %v", dirs)
		}
	}
	for _, name := range []string{"node_modules", "package.json", "package-lock.json"} {
		if _, err := os.Stat(filepath.Join(dirs[0], name)); err != nil {
			t.Error(err)
		}
	}
	calls, err := os.ReadFile(filepath.Join(dirs[0], "..", "calls"))
	if err != nil || !strings.HasPrefix(string(calls), "ci --ignore-scripts ") || strings.Count(string(calls), "\n") != 1 {
		t.Errorf("npm was called with %q, %v", calls, err)
	}
}

func TestAnInstallationThatFailsLeavesNone(t *testing.T) {
	programs(t, map[string]string{
		"node": newNode, "npm": `if [ "$1" = --version ]; then echo 11.0.0; else mkdir node_modules; echo no network >&2; exit 1; fi`,
	})
	_, err := Install(t.Context(), t.Output())
	if err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("got %v", err)
	}
	for _, name := range installed(t) {
		if !strings.HasSuffix(name, ".unfinished") {
			t.Errorf("%s is there", name)
		}
	}
}

func TestACanceledInstallationEnds(t *testing.T) {
	programs(t, map[string]string{
		"node": newNode, "npm": `if [ "$1" = --version ]; then echo 11.0.0; else mkdir node_modules; sleep 600; fi`,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Install(ctx, cancelAt{"Installing", cancel})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
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

func TestWhatIsMissingIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		programs map[string]string
		want     string
	}{
		"old node": {map[string]string{"node": `echo v18.19.1`, "npm": newNPM}, "node is v18.19.1"},
		"odd node": {map[string]string{"node": `echo node`, "npm": newNPM}, "node is node"},
		"old npm":  {map[string]string{"node": newNode, "npm": `echo 8.19.4`}, "npm is 8.19.4"},
		"none":     {nil, "node is not in PATH"},
		"no npm":   {map[string]string{"node": newNode}, "npm is not in PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			programs(t, test.programs)
			dir, _, _ := strings.Cut(os.Getenv("PATH"), ":")
			t.Setenv("PATH", dir)
			_, err := Install(t.Context(), t.Output())
			if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "apt-get install") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRun(t *testing.T) {
	programs(t, map[string]string{
		"npm": newNPM, "node": `case "$1" in
--version) echo v24.1.0 ;;
*) echo "$(basename "$1") $2 $GREETING"; [ "$2" = fail ] && { echo reason >&2; exit 3; }; exit 0 ;;
esac`,
	})
	out, err := Run(t.Context(), Script{Name: "versions.mjs", Args: []string{"a b"}, Env: []string{"GREETING=hello"}})
	if err != nil || string(out) != "versions.mjs a b hello\n" {
		t.Errorf("got %q, %v", out, err)
	}
	out, err = Run(t.Context(), Script{Name: "versions.mjs", Args: []string{"fail"}})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(fmt.Sprint(err), "reason") || len(out) == 0 {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := Run(t.Context(), Script{Name: "missing.mjs"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
