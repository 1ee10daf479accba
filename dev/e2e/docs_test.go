package e2e

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/npm"
)

// The example of docs/api.md is run as it stands, and follows a user's messages over the death of the server.
func TestTheExampleForApolloClientMissesNothing(t *testing.T) {
	t.Parallel()
	stack := ownStack(t, onSharedMySQL(t, harness.Options{Graphs: 2}))
	ann, bob := account(t, stack, "Ann"), account(t, stack, "Bob")
	spare := at(stack, ann)[1]
	send(t, ann, bob, "before")

	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n```js\n")
	example, _, ok := strings.Cut(rest, "\n```\n")
	if !ok {
		t.Fatal("docs/api.md has no example in JavaScript")
	}
	cmd, err := npm.Command(t.Context(), npm.Script{
		Source: example, Env: []string{"URL=" + stack.Endpoints()[0], "TOKEN=" + bob.Token},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	says := func(want string) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the example ended (%v) before it said %q", lines.Err(), want)
		}
		if lines.Text() != want {
			t.Errorf("the example said %q, want %q", lines.Text(), want)
		}
	}
	says("following 1 conversations")
	send(t, ann, bob, "live")
	says("Ann: live")
	graph := stack.Graphs[0]
	if err := graph.Kill(); err != nil {
		t.Fatal(err)
	}
	send(t, spare, bob, "missed")
	if err := graph.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	says("Ann: missed")
	send(t, ann, bob, "live again")
	says("Ann: live again")
}
