package child

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func removeAtEnd(t *testing.T, d *TempDir) {
	t.Cleanup(func() {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
}

func TestTempDirIsLockedAndRemoved(t *testing.T) {
	base := t.TempDir()
	d, err := newTempDir(base, "child-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Path, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := newTempDir(base, "child-") // It sweeps.
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.Path, "data")); err != nil {
		t.Errorf("a folder in use was swept: %v", err)
	}
	for _, d := range []*TempDir{d, other} {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(base)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTempDirIsSweptWhenItsOwnerHasEnded(t *testing.T) {
	base := t.TempDir()
	d, err := newTempDir(base, "child-")
	if err != nil {
		t.Fatal(err)
	}
	stranger := filepath.Join(base, "child-without-lock")
	if err := os.Mkdir(stranger, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.lock.Close(); err != nil { // As the end of the process would.
		t.Fatal(err)
	}
	next, err := newTempDir(base, "child-")
	if err != nil {
		t.Fatal(err)
	}
	removeAtEnd(t, next)
	if _, err := os.Stat(d.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there (%v)", d.Path, err)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Errorf("a folder that is not ours was swept: %v", err)
	}
}

func TestTempDirIsShort(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	d, err := NewTempDir("child-test-")
	if err != nil {
		t.Fatal(err)
	}
	removeAtEnd(t, d)
	if len(d.Path) > 90 {
		t.Errorf("%s is too long for a socket in it", d.Path)
	}
}
