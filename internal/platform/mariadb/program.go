package mariadb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"chatapp.dev/internal/platform/filelock"
)

// ErrNotInstalled says that this machine has no MariaDB server that could be started.
var ErrNotInstalled = errors.New("MariaDB server 10.11 or later is not installed; install it with " +
	"`apt-get install mariadb-server` (Debian, Ubuntu), `dnf install mariadb-server` (Fedora) or `brew install mariadb` (macOS)")

// logFileSize is given to the installation and to every start alike, so that no start has to resize the log. It is small
// because each throw-away server copies it.
const logFileSize = "--innodb-log-file-size=32M"

// program is an installed MariaDB.
type program struct {
	server    string // Path of mariadbd.
	installer string // Path of mariadb-install-db.
	version   string
}

// Installed returns nil when this machine has a MariaDB that can be started, else ErrNotInstalled, wrapped, or why it
// cannot be asked.
func Installed(ctx context.Context) error {
	_, err := find(ctx)
	return err
}

// find looks for MariaDB in PATH and where packages put it for root alone.
func find(ctx context.Context) (program, error) {
	found := ErrNotInstalled
	for _, name := range []string{"mariadbd", "mysqld"} {
		path, err := lookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, path, "--no-defaults", "--version").Output()
		if err != nil {
			return program{}, fmt.Errorf("ask %s for its version: %w", path, err)
		}
		version, ok := parseVersion(string(out))
		if !ok {
			found = fmt.Errorf("%s is %q: %w", path, strings.TrimSpace(string(out)), ErrNotInstalled)
			continue
		}
		installer, err := lookPath("mariadb-install-db")
		if err != nil {
			return program{}, fmt.Errorf("%s is here but mariadb-install-db is not: %w", path, ErrNotInstalled)
		}
		return program{server: path, installer: installer, version: version}, nil
	}
	return program{}, found
}

// packageDirs are folders that packages use and that an ordinary user's PATH often lacks.
var packageDirs = []string{
	"/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/opt/homebrew/opt/mariadb/bin", "/usr/local/opt/mariadb/bin",
}

func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range packageDirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

var versionPattern = regexp.MustCompile(`\b((\d+)\.(\d+)\.\d+)-MariaDB\b`)

// parseVersion reads the output of `mariadbd --version`; ok is false for MySQL and for a MariaDB that is too old.
func parseVersion(out string) (version string, ok bool) {
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return "", false
	}
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	return m[1] + "-MariaDB", major > 10 || major == 10 && minor >= 11
}

// asUser returns the argument without which MariaDB refuses to run as root.
func asUser() []string {
	if os.Geteuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

// initialise makes a data directory out of the template unless it is one already. It appears whole or not at all.
func (p program) initialise(ctx context.Context, dataDir string, log *slog.Logger) error {
	if _, err := os.Stat(dataDir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory of MariaDB: %w", err)
	}
	template, err := p.template(ctx, log)
	if err != nil {
		return err
	}
	unfinished := dataDir + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("remove an unfinished data directory of MariaDB: %w", err)
	}
	if err := os.CopyFS(unfinished, os.DirFS(template)); err != nil {
		return errors.Join(fmt.Errorf("copy the template of MariaDB's data: %w", err), os.RemoveAll(unfinished))
	}
	if err := os.Rename(unfinished, dataDir); err != nil {
		return fmt.Errorf("put MariaDB's data directory in place: %w", err)
	}
	return nil
}

// templatePath names the folder for the data directory of a new server of this version. It makes the cache folder only.
func (p program) templatePath() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), "cache-"+strconv.Itoa(os.Getuid())) // A service user may have no home.
	}
	cache = filepath.Join(cache, "chatapp")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("make the cache folder: %w", err)
	}
	key := sha256.Sum256([]byte(p.server + "\n" + p.version + "\n" + logFileSize))
	return filepath.Join(cache, "mariadb-"+p.version+"-"+hex.EncodeToString(key[:4])), nil
}

// template returns a folder with the data directory of a new server of this version, and makes it when it does not
// exist. Of several processes that need it at once, one makes it and the others wait.
func (p program) template(ctx context.Context, log *slog.Logger) (string, error) {
	template, err := p.templatePath()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(template); err == nil {
		return template, nil
	}
	lock, err := filelock.Wait(ctx, template+".lock")
	if err != nil {
		return "", fmt.Errorf("wait for the template of MariaDB's data: %w", err)
	}
	defer lock.Close()
	if _, err := os.Stat(template); err == nil {
		return template, nil
	}
	log.Debug("make the template of MariaDB's data", "path", template)
	unfinished := template + ".unfinished" // Only the holder of the lock touches it.
	if err := os.RemoveAll(unfinished); err != nil {
		return "", fmt.Errorf("remove an unfinished template: %w", err)
	}
	args := append([]string{
		"--no-defaults", "--datadir=" + unfinished, "--auth-root-authentication-method=normal",
		"--skip-test-db", "--skip-name-resolve", logFileSize,
	}, asUser()...)
	if out, err := exec.CommandContext(ctx, p.installer, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", p.installer, err, out)
	}
	if err := os.Rename(unfinished, template); err != nil {
		return "", fmt.Errorf("put the template of MariaDB's data in place: %w", err)
	}
	return template, nil
}
