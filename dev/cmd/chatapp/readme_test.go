package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"chatapp.dev/dev/internal/client"
)

// readme is where the examples are.
const readme = "../../../README.md"

// block finds the examples: fenced code after a comment that wants it run.
var block = regexp.MustCompile("(?s)<!-- run -->\n```(sh|graphql)\n(.*?)```\n")

// variable finds the variables of an operation.
var variable = regexp.MustCompile(`\$(\w+):`)

// TestTheExamplesOfTheReadmeWork pastes those for a terminal into one, in their order, and then runs those in GraphQL as
// one of the people that came of it.
func TestTheExamplesOfTheReadmeWork(t *testing.T) {
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	var operations []string
	for _, found := range block.FindAllStringSubmatch(string(text), -1) {
		if found[1] == "sh" {
			script.WriteString(found[2])
		} else {
			operations = append(operations, found[2])
		}
	}
	if script.Len() == 0 || len(operations) == 0 {
		t.Fatalf("%s has %d bytes of script and %d operations to run", readme, script.Len(), len(operations))
	}
	dir := t.TempDir()
	url := startRun(t, dir).system().URL
	if !strings.Contains(script.String(), "http://localhost:8080") {
		t.Error("the script does not use the address that make run serves on")
	}

	output, variables := pasteScript(t, dir, strings.ReplaceAll(script.String(), "http://localhost:8080", url))
	for _, want := range []string{
		`"from":"grace","body":"Hello Linus! 👋"`, // What listen prints.
		`{"data":{"sendMessage":{"message":{"seq":1},"userErrors":[]}}}`,
		`{"data":{"conversationWith":{"messages":{"edges":[{"node":{"seq":1,"body":"Hello Linus! 👋"`,
	} {
		if !strings.Contains(output, want) {
			t.Errorf("the script does not print %s, but\n%s", want, output)
		}
	}

	grace := client.New(url+"/graphql").As(client.User{}, variables["GRACE_TOKEN"])
	defer grace.CloseIdle()
	conversation, err := grace.ConversationWith(t.Context(), variables["LINUS_ID"])
	if err != nil || conversation == nil {
		t.Fatalf("grace's conversation with linus: %v, %v", conversation, err)
	}
	cursor, err := grace.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = grace.Send(t.Context(), client.Draft{
		ConversationID: conversation.ID, Body: "a note", ClientID: uuid.NewString(),
	})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{
		"after": cursor, "before": nil, "search": "lin", "userId": variables["LINUS_ID"], "conversationId": conversation.ID,
		"id": conversation.LastMessage.ID, "seq": 1, "body": "Hello again!", "clientId": uuid.NewString(),
	}
	for _, operation := range operations {
		t.Run(strings.Fields(operation)[1], func(t *testing.T) {
			chosen := map[string]any{}
			for _, name := range variable.FindAllStringSubmatch(operation, -1) {
				value, known := values[name[1]]
				if !known {
					t.Fatalf("no value for $%s", name[1])
				}
				chosen[name[1]] = value
			}
			if strings.HasPrefix(operation, "subscription") {
				if event := subscribe(t, grace, operation, chosen); !strings.Contains(event, `"body":"a note"`) {
					t.Errorf("the first event is %s", event)
				}
				return
			}
			var data map[string]json.RawMessage
			if err := grace.Do(t.Context(), operation, chosen, &data); err != nil {
				t.Fatal(err)
			}
			for field, value := range data {
				if string(value) == "null" || strings.Contains(string(value), `"userErrors":[{`) {
					t.Errorf("%s is %s", field, value)
				}
			}
		})
	}
}

// pasteScript runs a script in a folder whose .bin/chatapp is this program. It returns what it printed, and its variables.
func pasteScript(t *testing.T, dir, script string) (output string, variables map[string]string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\n%s=yes exec '%s' \"$@\"\n", asProgram, self)
	if err := os.WriteFile(filepath.Join(dir, ".bin", "chatapp"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script+"\nset >variables\n")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	set, err := os.ReadFile(filepath.Join(dir, "variables"))
	if err != nil {
		t.Fatal(err)
	}
	variables = map[string]string{}
	for line := range strings.Lines(string(set)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			variables[name] = value
		}
	}
	return string(out), variables
}

// subscribe runs a subscription by the frames of the protocol alone, and returns the first event.
func subscribe(t *testing.T, c *client.Client, operation string, variables map[string]any) string {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
	conn, res, err := dialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(c.Endpoint(), "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer conn.Close()
	send := func(frame map[string]any) {
		if err := conn.WriteJSON(frame); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(want string) string {
		var got struct {
			Type    string          `json:"type"`
			Payload json.RawMessage `json:"payload"`
		}
		if err := conn.ReadJSON(&got); err != nil {
			t.Fatal(err)
		}
		if got.Type != want {
			t.Fatalf("a frame %s %s, want %s", got.Type, got.Payload, want)
		}
		return string(got.Payload)
	}
	send(map[string]any{"type": "connection_init", "payload": map[string]string{"authorization": "Bearer " + c.Token}})
	receive("connection_ack")
	send(map[string]any{
		"id": "1", "type": "subscribe", "payload": map[string]any{"query": operation, "variables": variables},
	})
	return receive("next")
}
