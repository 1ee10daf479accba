package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestGenerateKeyFileThenLoadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := GenerateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the key file has mode %o, want 600", mode)
	}
	keys, err := LoadKeys(path)
	if err != nil || len(keys) != 1 {
		t.Fatalf("LoadKeys = %d keys, %v; want 1", len(keys), err)
	}

	if err := GenerateKeyFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second GenerateKeyFile gave %v, want fs.ErrExist", err)
	}
	again, err := LoadKeys(path)
	if err != nil || !keys[0].Equal(again[0]) {
		t.Errorf("a second GenerateKeyFile replaced the key (%v)", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("GenerateKeyFile left %v, %v; want the key file alone", entries, err)
	}
}

func TestGenerateKeyFileWithoutADirectory(t *testing.T) {
	if err := GenerateKeyFile(filepath.Join(t.TempDir(), "none", "key.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("GenerateKeyFile = %v, want fs.ErrNotExist", err)
	}
}

func TestLoadKeysOfADirectoryTakesTheNewestFirst(t *testing.T) {
	// The shape that Kubernetes gives a mounted secret: links to a hidden directory's files.
	dir := t.TempDir()
	data := filepath.Join(dir, "..data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	var want []ed25519.PrivateKey
	for _, name := range []string{"2026-03.pem", "2026-02.pem", "2026-01.pem"} {
		if err := GenerateKeyFile(filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		keys, err := LoadKeys(filepath.Join(data, name))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, keys[0])
	}
	if err := os.WriteFile(filepath.Join(dir, ".hidden"), []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}

	got, err := LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("LoadKeys found %d keys, want %d", len(got), len(want))
	}
	for i := range want {
		if !want[i].Equal(got[i]) {
			t.Errorf("key %d is not that of the file in that place", i)
		}
	}
}

func TestLoadKeysRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		content []byte
	}{
		{"no PEM", []byte("hello")},
		{"empty", nil},
		{"another type of block", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})},
		{"garbage in the block", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte("x")})},
		{"a key of another algorithm", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: ecDER})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "b.pem")
			if err := os.WriteFile(file, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			// One good key does not make up for a bad one.
			if err := GenerateKeyFile(filepath.Join(dir, "a.pem")); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{file, dir} {
				if keys, err := LoadKeys(path); err == nil {
					t.Errorf("LoadKeys(%s) = %d keys, want an error", path, len(keys))
				}
			}
		})
	}

	t.Run("nothing there", func(t *testing.T) {
		if _, err := LoadKeys(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("LoadKeys = %v, want fs.ErrNotExist", err)
		}
	})
	t.Run("empty directory", func(t *testing.T) {
		if _, err := LoadKeys(t.TempDir()); err == nil {
			t.Error("LoadKeys took an empty directory")
		}
	})
}
