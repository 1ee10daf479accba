package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chatapp.dev/internal/platform/identity"
)

// asUsers makes the test binary be the program itself.
const asUsers = "USERS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asUsers) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program runs the program with nothing but the given environment, and returns its exit code and what it wrote to
// standard error.
func program(t *testing.T, env []string, args ...string) (code int, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append([]string{asUsers + "=1"}, env...)
	var out strings.Builder
	cmd.Stderr = &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestWrongSettingStopsTheStartWithOneLineThatNamesIt(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := identity.GenerateKeyFile(key); err != nil {
		t.Fatal(err)
	}
	notAKey := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(notAKey, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Nothing listens at this address, so that settings that were taken would end in another error, and later.
	const dsn = "app:canary@tcp(127.0.0.1:1)/users"
	tests := map[string]struct {
		variable, value string
	}{
		"no DSN":              {"USERS_MYSQL_DSN", ""},
		"bad DSN":             {"USERS_MYSQL_DSN", "mysql://app:canary@db/users"},
		"empty keys":          {"USERS_SIGNING_KEYS", ""},
		"no keys":             {"USERS_SIGNING_KEYS", key + ".missing"},
		"no key in directory": {"USERS_SIGNING_KEYS", t.TempDir()},
		"not a key":           {"USERS_SIGNING_KEYS", notAKey},
		"log level":           {"USERS_LOG_LEVEL", "loud"},
		"port":                {"USERS_RPC_LISTEN", ":70000"},
		"admin port":          {"USERS_ADMIN_LISTEN", "localhost:http"},
		"negative deadline":   {"USERS_RPC_DEFAULT_DEADLINE", "-1s"},
		"short token":         {"USERS_TOKEN_TTL", "59s"},
		"no duration":         {"USERS_TOKEN_TTL", "12"},
		"hash memory":         {"USERS_PASSWORD_HASH_MEMORY", "7"},
		"hash iterations":     {"USERS_PASSWORD_HASH_ITERATIONS", "0"},
		"hash concurrency":    {"USERS_PASSWORD_HASH_CONCURRENCY", "-1"},
		"development no bool": {"USERS_DEVELOPMENT", "perhaps"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stderr := program(t, []string{
				"USERS_MYSQL_DSN=" + dsn, "USERS_SIGNING_KEYS=" + key, // The last value of a variable counts.
				test.variable + "=" + test.value,
			}, "serve")
			flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(test.variable, "USERS_"), "_", "-"))
			named := strings.Contains(stderr, flag+" ("+test.variable+")")
			if code != 2 || strings.Count(stderr, "\n") != 1 || !named {
				t.Errorf("exit code %d and %q, want 2 and one line that names %s", code, stderr, flag)
			}
			if strings.Contains(stderr, "canary") {
				t.Errorf("the line has a secret: %q", stderr)
			}
		})
	}
}

func TestMissingSettingsAreNamed(t *testing.T) {
	t.Parallel()
	code, stderr := program(t, nil, "serve")
	if code != 2 || strings.Count(stderr, "\n") != 1 ||
		!strings.Contains(stderr, "USERS_MYSQL_DSN") || !strings.Contains(stderr, "USERS_SIGNING_KEYS") {
		t.Errorf("exit code %d and %q, want 2 and one line that names what is missing", code, stderr)
	}
}

func TestKeysGenerateWritesAKeyOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key.pem")
	if code, stderr := program(t, nil, "keys", "generate", file); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := identity.LoadKeys(file); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, err %v; want one", len(keys), err)
	}
	if code, _ := program(t, nil, "keys", "generate", file); code != 1 {
		t.Errorf("the second time the exit code is %d, want 1", code)
	}
	if second, err := os.ReadFile(file); err != nil || string(second) != string(first) {
		t.Errorf("the key was replaced (err %v)", err)
	}
}
