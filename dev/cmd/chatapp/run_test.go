package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/internal/platform/run"
)

// examples returns what a demo prints to be pasted into a terminal.
func examples(t *testing.T, output string) string {
	t.Helper()
	_, from, ok := strings.Cut(output, "\nTOKEN=")
	if !ok {
		t.Fatalf("no example in\n%s", output)
	}
	script, _, _ := strings.Cut(from, "\n3. ")
	return "TOKEN=" + script
}

// paste runs a script as a terminal would.
func paste(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return string(out)
}

func TestWhatPeopleWriteIsThereAfterRestartsAndKills(t *testing.T) {
	dir := t.TempDir()
	r := startDemo(t, dir)
	first, url := r.output.String(), r.system().URL
	if out := paste(t, examples(t, first)); !strings.Contains(out, `"seq":7,"body":"Hello from a terminal!"`) {
		t.Errorf("the pasted example answers %s", out)
	}
	r.signal(syscall.SIGKILL)
	r.end()

	r = startDemo(t, dir)
	again := r.output.String()
	_, want, _ := strings.Cut(first, "\n\n     1 ")
	want, _, _ = strings.Cut(want, "\n\n1. ")
	want += "\n     7  ada: Hello from a terminal!"
	_, got, _ := strings.Cut(again, "\n\n     1 ")
	got, _, _ = strings.Cut(got, "\n\n1. ")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the conversation after kill -9 (-want +got)\n%s", diff)
	}
	// The client id of before is not sent twice, and the new one is.
	if out := paste(t, strings.ReplaceAll(examples(t, first), url, r.system().URL)); !strings.Contains(out, `"seq":7`) {
		t.Errorf("pasting the first example again answers %s", out)
	}
	if out := paste(t, examples(t, again)); !strings.Contains(out, `"seq":8`) {
		t.Errorf("pasting the second example answers %s", out)
	}
	r.stop()

	r = startRun(t, dir)
	s := r.system()
	ada, err := client.New(s.URL+"/graphql").SignIn(t.Context(), "ada", demoPassword)
	if err != nil {
		t.Fatal(err)
	}
	conversations, err := ada.AllConversations(t.Context())
	if err != nil || len(conversations) != 1 || conversations[0].LastMessage.Seq != 8 {
		t.Errorf("after the restart: %+v, %v", conversations, err)
	}
	r.stop()
}

func TestADemoLeavesSomebodyElsesAccountAlone(t *testing.T) {
	dir := t.TempDir()
	r := startRun(t, dir)
	_, err := client.New(r.system().URL+"/graphql").SignUp(t.Context(), client.Account{
		Username: "Bob", Email: "bob@example.org", Password: "not the demo's",
	})
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	r = startRun(t, dir, "--demo")
	r.await("There is no demo here: the username bob is somebody else's.")
	r.stop()
}

func TestATakenPortIsNamedBeforeAnythingStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().(*net.TCPAddr)
	dir := t.TempDir()
	got := finish(t, dir, "run", "--listen="+addr.String())
	next := fmt.Sprintf("--listen=127.0.0.1:%d", addr.Port+1)
	want := finished{code: 2, stderr: fmt.Sprintf("chatapp: --listen (CHATAPP_LISTEN) is %s, where another program listens. "+
		"Choose another port: chatapp run %s, or make run ARGS='%s'\n", addr, next, next)}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	files, err := filepath.Glob(filepath.Join(dir, ".chatapp", "*"))
	if err != nil || len(files) != 1 { // The lock.
		t.Errorf("something was made: %v, %v", files, err)
	}
}

func TestASecondRunOnTheSameFolderSaysWhoRuns(t *testing.T) {
	dir := t.TempDir()
	r := startRun(t, dir)
	s := r.system()
	for _, args := range [][]string{
		{"run", "--listen=" + s.Graph}, // As when the very same command is repeated.
		{"run", "--listen=127.0.0.1:0"},
	} {
		got := finish(t, dir, args...)
		who := fmt.Sprintf("chatapp: --data (CHATAPP_DATA) is .chatapp, where a ChatApp runs already: %s/, process %d. ", s.URL, s.PID)
		if got.code != 2 || got.stdout != "" || strings.Count(got.stderr, "\n") != 1 ||
			!strings.HasPrefix(got.stderr, who) || !strings.Contains(got.stderr, "--data=.chatapp-2 --listen=127.0.0.1:") {
			t.Errorf("%v: got %+v", args, got)
		}
	}
	r.stop()
}

func TestASecondSignalStopsAtOnce(t *testing.T) {
	dir := t.TempDir()
	r := startRun(t, dir)
	// A request whose body does not come keeps graph from stopping for a while.
	conn, err := net.Dial("tcp", r.system().Graph)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"+
		"Expect: 100-continue\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil { // It asks for the body.
		t.Fatal(err)
	}
	r.signal(syscall.SIGINT)
	r.await("ChatApp stops.")
	r.signal(syscall.SIGINT)
	if got := r.end(); got.code != 130 {
		t.Errorf("got %+v, want code 130", got)
	}
	startRun(t, dir).stop() // Nothing of the first is in the way.
}

func TestSettingsOfRunThatAreWrongAreNamed(t *testing.T) {
	tests := []struct{ args, want string }{
		{"--engine=oracle", `--engine (CHATAPP_ENGINE) must be one of auto, mariadb, tidb, dsn, but is "oracle"`},
		{"--engine=dsn", "--engine (CHATAPP_ENGINE) is dsn, which needs --mysql-dsn"},
		{"--engine=tidb --mysql-dsn=root@tcp(db)/", "--engine (CHATAPP_ENGINE) must be auto or dsn with --mysql-dsn, but is tidb"},
		{"--mysql-dsn=root:secret@db", "--mysql-dsn (CHATAPP_MYSQL_DSN) must be user:password@tcp(host:port)/, such as root:secret@tcp(127.0.0.1:3306)/"},
		{"--redis=redis://db", `--redis (CHATAPP_REDIS) must end in a port from 0 to 65535, but is "redis://db"`},
		{"--data=", "--data (CHATAPP_DATA) must be a folder, but is empty"},
		{"--listen=8080", `--listen (CHATAPP_LISTEN) must be host:port, such as 127.0.0.1:8080 or :8080, but is "8080"`},
	}
	for _, test := range tests {
		err := run.Parse("chatapp", &cli{}, append([]string{"run"}, strings.Fields(test.args)...))
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", test.args, err, test.want)
		}
	}
}

func TestADataFolderThatCannotBeUsedIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := finish(t, dir, "run", "--data=file/below")
	if got.code != 2 || !strings.HasPrefix(got.stderr, "chatapp: --data (CHATAPP_DATA) is file/below, which cannot be used: ") ||
		strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestURLsAreOnesThatABrowserOpens(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8080":  "http://localhost:8080",
		"[::]:8080":       "http://localhost:8080",
		"0.0.0.0:80":      "http://localhost:80",
		"[::1]:8080":      "http://[::1]:8080",
		"192.0.2.1:18080": "http://192.0.2.1:18080",
	} {
		if got := webURL(addr); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}
