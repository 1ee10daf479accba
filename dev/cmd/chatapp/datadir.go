package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"chatapp.dev/internal/platform/filelock"
)

// system tells where a running ChatApp is. It stands in the file run.json of the data folder for as long as that runs.
type system struct {
	PID int `json:"pid"`
	// URL is where people go: the playground.
	URL string `json:"url"`
	// Graph, Users and Messages are host and port of the services: HTTP, gRPC, gRPC.
	Graph    string `json:"graph"`
	Users    string `json:"users"`
	Messages string `json:"messages"`
}

// dataDir is a folder that one ChatApp at a time runs on.
type dataDir struct {
	path string
	lock *filelock.Lock
}

// openDataDir takes the folder, which it makes if need be. The error is filelock.ErrHeld, wrapped, when a ChatApp runs
// on it.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	lock, err := filelock.Try(filepath.Join(path, "lock"))
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	d := &dataDir{path: path, lock: lock}
	// One that was killed has left its file.
	if err := d.withdraw(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// announce writes the file for those who look for the system.
func (d *dataDir) announce(s system) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode run.json: %w", err)
	}
	fresh := filepath.Join(d.path, ".run.json")
	if err := os.WriteFile(fresh, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write run.json: %w", err)
	}
	if err := os.Rename(fresh, filepath.Join(d.path, "run.json")); err != nil {
		return fmt.Errorf("write run.json: %w", err)
	}
	return nil
}

func (d *dataDir) withdraw() error {
	if err := os.Remove(filepath.Join(d.path, "run.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove run.json: %w", err)
	}
	return nil
}

// close gives the folder back.
func (d *dataDir) close() error { return errors.Join(d.withdraw(), d.lock.Close()) }

// readSystem returns what run.json of the folder says, true or not. The error is fs.ErrNotExist, wrapped, when there is
// none.
func readSystem(dir string) (system, error) {
	var s system
	text, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", filepath.Join(dir, "run.json"), err)
	}
	return s, nil
}

// findSystem finds the ChatApp that runs on the folder.
func findSystem(dir string) (system, error) {
	s, err := readSystem(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("no ChatApp runs on the data folder %s: start one with make run", dir)
	}
	if err != nil {
		return s, err
	}
	conn, err := net.DialTimeout("tcp", s.Users, 5*time.Second)
	if err != nil {
		return s, fmt.Errorf("the ChatApp on the data folder %s (process %d) runs no more: start it again", dir, s.PID)
	}
	return s, conn.Close()
}
