package identity

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// KeyFetcher reads the published key set (RFC 7517, JSON).
type KeyFetcher func(ctx context.Context) (jwks []byte, err error)

const pemType = "PRIVATE KEY"

// LoadKeys reads Ed25519 keys in PKCS #8 PEM from a file or from every file of a directory. Files are taken in reverse
// order of their names, so that with names that ascend in time (2026-01.pem, 2026-02.pem) the newest key comes first.
// Hidden files and sub-directories are passed over, since Kubernetes keeps its own in a mounted secret. Anything else
// that is not such a key is an error: a key that is silently not published signs out everybody it signed in.
func LoadKeys(path string) ([]ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = keyFiles(path); err != nil {
			return nil, fmt.Errorf("signing keys: %w", err)
		}
	}
	var keys []ed25519.PrivateKey
	for _, file := range files {
		found, err := readKeyFile(file)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w", file, err)
		}
		keys = append(keys, found...)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("signing keys: there is no key file in %s", path)
	}
	return keys, nil
}

// keyFiles lists the files of a directory, the last name first.
func keyFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range slices.Backward(entries) {
		file := filepath.Join(dir, entry.Name())
		// Stat and not the entry's own type: in a mounted secret every file is a symbolic link.
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() && !strings.HasPrefix(entry.Name(), ".") {
			files = append(files, file)
		}
	}
	return files, nil
}

// readKeyFile reads every PEM block of a file.
func readKeyFile(file string) ([]ed25519.PrivateKey, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PrivateKey
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != pemType {
			return nil, fmt.Errorf("want a PEM block %q, not %q", pemType, block.Type)
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse PKCS #8: %w", err)
		}
		key, ok := parsed.(ed25519.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("want an Ed25519 key, not %T", parsed)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no PEM block in it")
	}
	return keys, nil
}

// GenerateKeyFile makes a fresh key and writes it to a new file that only its owner can read. The file appears complete
// or not at all; one that is there already is kept, and the error is fs.ErrExist.
func GenerateKeyFile(path string) (err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("generate signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("generate signing key: %w", err)
	}
	// The hidden name keeps LoadKeys from seeing a half-written file. CreateTemp gives mode 0600.
	temp, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return fmt.Errorf("generate signing key: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(temp.Name())) }()
	err = pem.Encode(temp, &pem.Block{Type: pemType, Bytes: der})
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return fmt.Errorf("write signing key: %w", err)
	}
	// A link, unlike a rename, never replaces a key that another process has made meanwhile.
	if err := os.Link(temp.Name(), path); err != nil {
		return fmt.Errorf("write signing key: %w", err)
	}
	return nil
}

// keyID returns the RFC 7638 thumbprint of a public key.
func keyID(key ed25519.PublicKey) (string, error) {
	jwk := jose.JSONWebKey{Key: key}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("key thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}
