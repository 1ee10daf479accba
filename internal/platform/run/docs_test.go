package run

import (
	"bytes"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

const wantDocs = "### `users serve`\n" + `
Serve.

| Variable | Flag | Default | Meaning |
|---|---|---|---|
` +
	"| `USERS_LOG_LEVEL` | `--log-level` | `info` | Least level to log: debug, info, warn, error. |\n" +
	"| `USERS_LOG_FORMAT` | `--log-format` | `json` | Format of a log line: json, text. |\n" +
	"| `USERS_ADMIN_LISTEN` | `--admin-listen` | `127.0.0.1:9101` | Address (host:port) of the probes /livez and /readyz. Port 0 takes a free one, which the log tells. |\n" +
	"| `USERS_POOL_SECRET` | `--pool-secret` | **required** | What opens the pool, such as s:abc. |\n" +
	"| `USERS_POOL_MAX_OPEN` | `--pool-max-open` | `32` | Most connections. |\n" +
	"| `USERS_POOL_MAX_IDLE` | `--pool-max-idle` | `8` | Most idle connections. |\n" +
	"| `USERS_POOL_PAIRS` | `--pool-pairs` | `2` | Pairs. |\n" +
	"| `USERS_LISTEN` | `--listen` | `:9000` | Where to listen. |\n" +
	"| `USERS_DRAIN` | `--drain` | `5s` | How long to drain. |\n" +
	"| `USERS_RATE` | `--rate` | `1.5` | Rate \\| burst. |\n" +
	"| `USERS_REFLECT` | `--reflect` | `false` | Serve reflection. |\n" +
	"| `USERS_SIZE` | `--size` | `3` | Size. |\n" +
	"\n### `users migrate`\n" + `
Migrate.

| Variable | Flag | Default | Meaning |
|---|---|---|---|
` +
	"| `USERS_LOG_LEVEL` | `--log-level` | `info` | Least level to log: debug, info, warn, error. |\n" +
	"| `USERS_LOG_FORMAT` | `--log-format` | `json` | Format of a log line: json, text. |\n" +
	"| `USERS_DRY_RUN` | `--dry-run` | `false` | Only say what would be done. |\n"

func TestConfigDocsListEverySetting(t *testing.T) {
	var got bytes.Buffer
	if err := WriteConfigDocs(&got, "users", &testCLI{}, kong.Vars{"admin_listen": "127.0.0.1:9101"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantDocs, got.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAProgramPrintsItsOwnConfigDocs(t *testing.T) {
	want := result{Stdout: wantDocs}
	if diff := cmp.Diff(want, start(t, &testCLI{}, nil, "--config-docs")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
