package users_test

import (
	"bytes"
	"context"
	"database/sql"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
	"chatapp.dev/internal/platform/errs"
	"chatapp.dev/internal/platform/identity"
	"chatapp.dev/internal/platform/ids"
	"chatapp.dev/internal/platform/mysql"
	"chatapp.dev/internal/platform/mysqltest"
	"chatapp.dev/internal/platform/rpc"
	"chatapp.dev/services/users"
	"chatapp.dev/services/users/internal/password"
)

func TestMain(m *testing.M) { os.Exit(mysqltest.Main(m)) }

// Whatever a test does, these must not be in the log when it ends.
const (
	goodPassword  = "canary-correct-horse"
	wrongPassword = "canary-wrong-horse"
	mailDomain    = "@canary.example"
	tokenStart    = "eyJ" // Every JWT begins with a JSON object in base64.
)

// system is a running service.
type system struct {
	users       usersv1.UsersServiceClient
	development usersv1.DevelopmentServiceClient
	// raw is a connection that neither sends a token nor translates errors.
	raw   *grpc.ClientConn
	admin string // The URL of the probes.
	cfg   users.Config
	// stop ends the service, and waits until it has ended.
	stop func()
}

// noRedis is where no Redis is, since nothing but a test of its own needs one.
const noRedis = "redis://127.0.0.1:1/0"

// newConfig returns settings for a service of the test's own, with a key and an empty, migrated database.
func newConfig(t *testing.T) users.Config {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "key.pem")
	if err := identity.GenerateKeyFile(keys); err != nil {
		t.Fatal(err)
	}
	cfg := users.Config{
		RPC:         rpc.ServerConfig{DefaultDeadline: 30 * time.Second, ShutdownTimeout: 10 * time.Second},
		MySQL:       mysql.Config{DSN: mysql.DSN(mysqltest.DSN(t))},
		Password:    password.Config{MemoryKiB: 64, Iterations: 1},
		SigningKeys: users.KeysPath(keys),
		TokenTTL:    time.Hour,
		Redis:       noRedis,
		Development: true,
	}
	migrate(t, cfg)
	return cfg
}

func migrate(t *testing.T, cfg users.Config) {
	t.Helper()
	err := users.Migrate(t.Context(), users.MigrateConfig{MySQL: cfg.MySQL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
}

// start runs a service until the test ends.
func start(t *testing.T, cfg users.Config) *system {
	t.Helper()
	cfg.Listener, cfg.AdminListener = listen(t), listen(t)
	var logged logBuffer
	log := slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- users.Run(ctx, cfg, log) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		logged.expectNoSecrets(t)
	})
	t.Cleanup(stop)

	translated, err := rpc.Dial(cfg.Listener.Addr().String(), rpc.WithDeadline(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := grpc.NewClient(cfg.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = translated.Close()
		_ = raw.Close()
	})
	return &system{
		users:       usersv1.NewUsersServiceClient(translated),
		development: usersv1.NewDevelopmentServiceClient(translated),
		raw:         raw,
		admin:       "http://" + cfg.AdminListener.Addr().String(),
		cfg:         cfg,
		stop:        stop,
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// logBuffer keeps everything that is logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) expectNoSecrets(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() == 0 {
		t.Error("nothing was logged, which proves nothing about what is not logged")
	}
	for line := range strings.Lines(b.buf.String()) {
		for _, secret := range []string{goodPassword, wrongPassword, mailDomain, tokenStart, "$argon2id$"} {
			if strings.Contains(line, secret) {
				t.Errorf("the log has %q in the line %s", secret, line)
			}
		}
	}
}

// signUpRequest is one that nothing is wrong with.
func signUpRequest(username string) *usersv1.SignUpRequest {
	return &usersv1.SignUpRequest{
		Username: username, Email: username + mailDomain, DisplayName: "Name of " + username, Password: goodPassword,
	}
}

func (s *system) signUp(t *testing.T, req *usersv1.SignUpRequest) *usersv1.SignUpResponse {
	t.Helper()
	res, err := s.users.SignUp(t.Context(), req)
	if err != nil {
		t.Fatalf("sign up %s: %v", req.GetUsername(), err)
	}
	return res
}

func (s *system) signIn(t *testing.T, login string) *usersv1.SignInResponse {
	t.Helper()
	res, err := s.users.SignIn(t.Context(), &usersv1.SignInRequest{Login: login, Password: goodPassword})
	if err != nil {
		t.Fatalf("sign in %s: %v", login, err)
	}
	return res
}

// as returns a context whose calls carry the token.
func as(t *testing.T, token *usersv1.AccessToken) context.Context {
	t.Helper()
	return identity.With(t.Context(), identity.Identity{Token: token.GetToken()})
}

// verify checks a token as another service does: with the keys that the service publishes.
func (s *system) verify(t *testing.T, token *usersv1.AccessToken) identity.Identity {
	t.Helper()
	verifier := identity.NewVerifier(func(ctx context.Context) ([]byte, error) {
		res, err := s.users.GetSigningKeys(ctx, &usersv1.GetSigningKeysRequest{})
		return res.GetJwks(), err
	})
	caller, err := verifier.Verify(t.Context(), token.GetToken())
	if err != nil {
		t.Fatal(err)
	}
	return caller
}

// signer returns one with the keys at a path.
func signer(t *testing.T, path users.KeysPath) *identity.Signer {
	t.Helper()
	keys, err := identity.LoadKeys(string(path))
	if err != nil {
		t.Fatal(err)
	}
	s, err := identity.NewSigner(keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// everybody lists the usernames of all accounts, as somebody without one sees them.
func (s *system) everybody(t *testing.T) []string {
	t.Helper()
	token, _, err := signer(t, s.cfg.SigningKeys).Sign(ids.New(), ids.New(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.users.SearchUsers(as(t, &usersv1.AccessToken{Token: token}), &usersv1.SearchUsersRequest{PageSize: 100})
	if err != nil {
		t.Fatal(err)
	}
	return usernames(res.GetUsers())
}

func usernames(found []*usersv1.User) []string {
	names := []string{}
	for _, user := range found {
		names = append(names, user.GetUsername())
	}
	return names
}

// open returns a connection to the service's database.
func (s *system) open(t *testing.T) *sql.DB {
	t.Helper()
	database, err := mysql.Open(t.Context(), s.cfg.MySQL, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	return database
}

// get reads a page of the admin server.
func (s *system) get(t *testing.T, path string) (status int, header http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(text)
}

// expectError checks an error that a client of the service sees.
func expectError(t *testing.T, err error, kind errs.Kind, code errs.Code, field string) {
	t.Helper()
	got, ok := errs.As(err)
	if !ok {
		t.Fatalf("err = %v, want %v %s %q", err, kind, code, field)
	}
	if got.Kind != kind || got.Code != code || got.Field != field || got.Message == "" {
		t.Errorf("err = %v, %s, %q with the message %q; want %v, %s, %q and a message",
			got.Kind, got.Code, got.Field, got.Message, kind, code, field)
	}
}
