package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// secret is a setting whose value is never shown.
type secret string

func (s *secret) UnmarshalText(text []byte) error {
	if !strings.HasPrefix(string(text), "s:") {
		return errors.New("must start with s:")
	}
	*s = secret(text)
	return nil
}

// even is a setting whose type has a Validate hook of its own.
type even int

func (e *even) Validate() error {
	if *e%2 != 0 {
		return fmt.Errorf("must be even, but is %d", *e)
	}
	return nil
}

type poolConfig struct {
	Secret  secret `required:"" help:"What opens the pool, such as s:abc."`
	MaxOpen int    `default:"32" help:"Most connections."`
	MaxIdle int    `default:"8" help:"Most idle connections."`
	Pairs   even   `default:"2" help:"Pairs."`
}

func (c *poolConfig) Validate() error {
	if c.MaxIdle > c.MaxOpen {
		return Invalid(&c.MaxIdle, "must be at most %d, the most open connections, but is %d", c.MaxOpen, c.MaxIdle)
	}
	return nil
}

type serveCommand struct {
	Common
	Pool    poolConfig    `embed:"" prefix:"pool-"`
	Listen  Addr          `default:":9000" help:"Where to listen."`
	Drain   time.Duration `default:"5s" help:"How long to drain."`
	Rate    float64       `default:"1.5" help:"Rate | burst."`
	Reflect bool          `help:"Serve reflection."`
	Size    uint8         `default:"3" help:"Size."`

	run func(ctx context.Context, log *slog.Logger, common *Common) error
}

func (c *serveCommand) Run(ctx context.Context, log *slog.Logger, common *Common) error {
	return c.run(ctx, log, common)
}

type migrateCommand struct {
	Logging
	DryRun bool `help:"Only say what would be done."`
}

func (c *migrateCommand) Run() error { return nil }

type testCLI struct {
	Serve   serveCommand   `cmd:"" help:"Serve."`
	Migrate migrateCommand `cmd:"" help:"Migrate."`
}

// result is what a program left behind.
type result struct {
	Code           int
	Stdout, Stderr string
}

// exited is panicked with where the process would have ended.
type exited int

// start runs the program "users" in this process.
func start(t *testing.T, cli *testCLI, signals <-chan os.Signal, args ...string) (r result) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	defer func() {
		if code, ok := recover().(exited); ok {
			r.Code = int(code)
		}
		r.Stdout, r.Stderr = stdout.String(), stderr.String()
	}()
	p := process{
		args:    args,
		stdout:  &stdout,
		stderr:  &stderr,
		signals: signals,
		exit:    func(code int) { panic(exited(code)) },
	}
	if cli.Serve.run == nil {
		cli.Serve.run = func(context.Context, *slog.Logger, *Common) error { return nil }
	}
	r.Code = p.run("users", "Accounts.", cli, []kong.Vars{{"admin_listen": "127.0.0.1:9101"}})
	return r
}

func TestAWrongSettingStopsTheStartWithOneLineNamingIt(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want string
	}{
		{
			name: "unknown log level by flag",
			args: []string{"migrate", "--log-level", "loud"},
			want: `users: --log-level (USERS_LOG_LEVEL) must be one of debug, info, warn, error, but is "loud"`,
		},
		{
			name: "unknown log level by variable",
			args: []string{"migrate"},
			env:  map[string]string{"USERS_LOG_LEVEL": "loud"},
			want: `users: --log-level (USERS_LOG_LEVEL) must be one of debug, info, warn, error, but is "loud"`,
		},
		{
			name: "required setting missing",
			args: []string{"serve"},
			want: `users: --pool-secret (USERS_POOL_SECRET) is required: What opens the pool, such as s:abc.`,
		},
		{
			name: "secret by variable is not echoed",
			args: []string{"serve"},
			env:  map[string]string{"USERS_POOL_SECRET": "hunter2"},
			want: `users: --pool-secret (USERS_POOL_SECRET) must start with s:`,
		},
		{
			name: "secret by flag is not echoed",
			args: []string{"serve", "--pool-secret=hunter2"},
			want: `users: --pool-secret (USERS_POOL_SECRET) must start with s:`,
		},
		{
			name: "port out of range",
			args: []string{"serve", "--pool-secret=s:", "--listen=:65536"},
			want: `users: --listen (USERS_LISTEN) must end in a port from 0 to 65535, but is ":65536"`,
		},
		{
			name: "address without port by variable",
			args: []string{"serve", "--pool-secret=s:"},
			env:  map[string]string{"USERS_ADMIN_LISTEN": "localhost"},
			want: `users: --admin-listen (USERS_ADMIN_LISTEN) must be host:port, such as 127.0.0.1:8080 or :8080, but is "localhost"`,
		},
		{
			name: "no duration",
			args: []string{"serve", "--pool-secret=s:"},
			env:  map[string]string{"USERS_DRAIN": "5 parsecs"},
			want: `users: --drain (USERS_DRAIN) must be a duration such as 500ms, 30s or 5m, but is "5 parsecs"`,
		},
		{
			name: "no whole number",
			args: []string{"serve", "--pool-secret=s:", "--pool-max-open=many"},
			want: `users: --pool-max-open (USERS_POOL_MAX_OPEN) must be a whole number, but is "many"`,
		},
		{
			name: "negative where only positive is possible",
			args: []string{"serve", "--pool-secret=s:", "--size=-1"},
			want: `users: --size (USERS_SIZE) must be a whole number, zero or more, but is "-1"`,
		},
		{
			name: "no number",
			args: []string{"serve", "--pool-secret=s:", "--rate=fast"},
			want: `users: --rate (USERS_RATE) must be a number, but is "fast"`,
		},
		{
			name: "no boolean",
			args: []string{"serve", "--pool-secret=s:"},
			env:  map[string]string{"USERS_REFLECT": "perhaps"},
			want: `users: --reflect (USERS_REFLECT) must be true or false, but is "perhaps"`,
		},
		{
			name: "flag without its value",
			args: []string{"serve", "--pool-secret=s:", "--drain"},
			want: `users: --drain (USERS_DRAIN) must be a duration such as 500ms, 30s or 5m, but has no value`,
		},
		{
			name: "value that its own type refuses, by variable",
			args: []string{"serve", "--pool-secret=s:"},
			env:  map[string]string{"USERS_POOL_PAIRS": "3"},
			want: `users: --pool-pairs (USERS_POOL_PAIRS) must be even, but is 3`,
		},
		{
			name: "settings that contradict each other in a nested struct",
			args: []string{"serve", "--pool-secret=s:", "--pool-max-open=4"},
			want: `users: --pool-max-idle (USERS_POOL_MAX_IDLE) must be at most 4, the most open connections, but is 8`,
		},
		{
			name: "unknown flag",
			args: []string{"migrate", "--log-levle=info"},
			want: `users: unknown flag --log-levle, did you mean "--log-level"?`,
		},
		{
			name: "no command",
			want: `users: expected one of "serve", "migrate"`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			got := start(t, &testCLI{}, nil, test.args...)
			if diff := cmp.Diff(result{Code: 2, Stderr: test.want + "\n"}, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// Kong reads the variables of every command; those of another command must not stop this one.
func TestAWrongSettingOfAnotherCommandIsNoMistake(t *testing.T) {
	t.Setenv("USERS_DRAIN", "nonsense")
	if got := start(t, &testCLI{}, nil, "migrate"); got.Code != 0 {
		t.Errorf("got %+v, want success", got)
	}
}

func TestSettingsComeFromFlagsThenVariablesThenDefaults(t *testing.T) {
	t.Setenv("USERS_POOL_SECRET", "s:env")
	t.Setenv("USERS_POOL_MAX_OPEN", "10")
	t.Setenv("USERS_LOG_LEVEL", "warn")
	var got Common
	cli := &testCLI{}
	cli.Serve.run = func(_ context.Context, log *slog.Logger, common *Common) error {
		got = *common
		log.Info("hidden")
		log.Warn("shown")
		return nil
	}
	r := start(t, cli, nil, "serve", "--pool-max-open=11", "--log-format=text")
	want := Common{Logging: Logging{LogLevel: "warn", LogFormat: "text"}, AdminListen: "127.0.0.1:9101"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("common settings (-want +got)\n%s", diff)
	}
	if pool := cli.Serve.Pool; pool.Secret != "s:env" || pool.MaxOpen != 11 || pool.MaxIdle != 8 {
		t.Errorf("got %+v", pool)
	}
	if r.Code != 0 || strings.Contains(r.Stderr, "hidden") || !strings.Contains(r.Stderr, "level=WARN msg=shown") {
		t.Errorf("got %+v, want one line of text", r)
	}
}

func TestAFailingCommandEndsWithOneLogLine(t *testing.T) {
	cli := &testCLI{}
	cli.Serve.run = func(context.Context, *slog.Logger, *Common) error { return errors.New("first\nsecond") }
	r := start(t, cli, nil, "serve", "--pool-secret=s:")
	var line map[string]any
	if err := json.Unmarshal([]byte(r.Stderr), &line); err != nil {
		t.Fatalf("stderr is not one line of JSON: %v\n%s", err, r.Stderr)
	}
	if r.Code != 1 || line["msg"] != "failed" || line["command"] != "serve" || line["err"] != "first\nsecond" || line["level"] != "ERROR" {
		t.Errorf("got code %d and %v", r.Code, line)
	}
}

func TestASettingThatOnlyTheAttemptShowsToBeWrongIsNamedToo(t *testing.T) {
	cli := &testCLI{}
	cli.Serve.run = func(context.Context, *slog.Logger, *Common) error {
		return fmt.Errorf("open: %w", Invalid(&cli.Serve.Listen, "is taken"))
	}
	got := start(t, cli, nil, "serve", "--pool-secret=s:")
	if diff := cmp.Diff(result{Code: 2, Stderr: "users: --listen (USERS_LISTEN) is taken\n"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestProgramsAndCommandsChooseTheirDefaultsOfLogging(t *testing.T) {
	var cli struct {
		Watch struct {
			Logging `set:"log_level=warn"`
		} `cmd:""`
		Work Logging `cmd:""`
	}
	if err := Parse("users", &cli, []string{"watch"}, kong.Vars{"log_format": "text"}); err != nil {
		t.Fatal(err)
	}
	if want := (Logging{LogLevel: "warn", LogFormat: "text"}); cli.Watch.Logging != want {
		t.Errorf("watch: got %+v, want %+v", cli.Watch.Logging, want)
	}
	if want := (Logging{LogLevel: "info", LogFormat: "text"}); cli.Work != want {
		t.Errorf("work: got %+v, want %+v", cli.Work, want)
	}
}

func TestParseReadsSettingsAsMainDoes(t *testing.T) {
	t.Setenv("USERS_POOL_MAX_OPEN", "10")
	t.Setenv("USERS_POOL_SECRET", "s:env")
	var cli struct {
		Common
		Pool poolConfig `embed:"" prefix:"pool-"`
	}
	if err := Parse("users", &cli, []string{"--pool-secret=s:arg"}); err != nil {
		t.Fatal(err)
	}
	if want := (poolConfig{Secret: "s:arg", MaxOpen: 10, MaxIdle: 8, Pairs: 2}); cli.Pool != want {
		t.Errorf("got %+v, want %+v", cli.Pool, want)
	}
	t.Setenv("USERS_POOL_PAIRS", "3")
	err := Parse("users", &cli, []string{"--pool-secret=s:arg"})
	if want := "--pool-pairs (USERS_POOL_PAIRS) must be even, but is 3"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestASignalEndsTheContextAndIsNoFailure(t *testing.T) {
	for name, end := range map[string]func(context.Context) error{
		"returning nil":               func(context.Context) error { return nil },
		"returning the context's end": func(ctx context.Context) error { return fmt.Errorf("serve: %w", ctx.Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			signals := make(chan os.Signal, 2)
			cli := &testCLI{}
			cli.Serve.run = func(ctx context.Context, _ *slog.Logger, _ *Common) error {
				signals <- syscall.SIGTERM
				<-ctx.Done()
				return end(ctx)
			}
			if r := start(t, cli, signals, "serve", "--pool-secret=s:"); r.Code != 0 {
				t.Errorf("got %+v, want success", r)
			}
		})
	}
}

func TestAFailureToStopIsAFailure(t *testing.T) {
	signals := make(chan os.Signal, 2)
	cli := &testCLI{}
	cli.Serve.run = func(ctx context.Context, _ *slog.Logger, _ *Common) error {
		signals <- os.Interrupt
		<-ctx.Done()
		return errors.New("two requests were cut off")
	}
	if r := start(t, cli, signals, "serve", "--pool-secret=s:"); r.Code != 1 {
		t.Errorf("got %+v, want code 1", r)
	}
}

func TestVersionAndHelpNeedNoSettings(t *testing.T) {
	if r := start(t, &testCLI{}, nil, "serve", "--version"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "users devel (go") {
		t.Errorf("--version: got %+v", r)
	}
	r := start(t, &testCLI{}, nil, "serve", "--help")
	if r.Code != 0 || !strings.Contains(r.Stdout, "$USERS_POOL_SECRET") {
		t.Errorf("--help: got %+v, want the variables", r)
	}
}

func TestAWrongTelemetryVariableStopsTheStart(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
	r := start(t, &testCLI{}, nil, "migrate")
	if r.Code != 2 || !strings.Contains(r.Stderr, "OTEL_TRACES_EXPORTER") || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("got %+v, want one line naming the variable", r)
	}
}
