package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"chatapp.dev/dev/internal/client"
)

func TestListenPrintsWhatArrives(t *testing.T) {
	s, nobody := startSystem(t)
	people := runSeed(t, s, "--users=2")
	ada := nobody.As(client.User{}, people[0].AccessToken)
	cursor, err := ada.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bodies := []string{"one <b>", "two\nlines", "три"}
	for _, body := range bodies {
		_, err := ada.Send(t.Context(), client.Draft{RecipientID: people[1].ID, Body: body, ClientID: uuid.NewString()})
		if err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	l := listenCommand{Token: people[0].AccessToken, After: cursor, Count: len(bodies), URL: nobody.Endpoint()}
	if err := l.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(bodies) {
		t.Fatalf("got %q, want %d lines", lines, len(bodies))
	}
	for i, line := range lines {
		var got heard
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if got.Body != bodies[i] || got.Seq != i+1 || got.From != "seed1" || got.SentAt.IsZero() || got.Cursor == "" {
			t.Errorf("line %d is %+v", i, got)
		}
	}
	if !strings.Contains(lines[0], "<b>") {
		t.Errorf("escaped for no reason: %s", lines[0])
	}
}

func TestListenEndsWithItsContextOrForAReason(t *testing.T) {
	s, nobody := startSystem(t)
	people := runSeed(t, s, "--users=1")
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan error, 1)
	l := listenCommand{Token: people[0].AccessToken, URL: nobody.Endpoint()}
	go func() { listening <- l.run(ctx, t.Output()) }()
	cancel()
	if err := <-listening; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	for name, broken := range map[string]listenCommand{
		"UNAUTHENTICATED": {Token: "nonsense", URL: nobody.Endpoint()},
		"CURSOR_INVALID":  {Token: people[0].AccessToken, After: "nonsense", URL: nobody.Endpoint()},
	} {
		if err := broken.run(t.Context(), t.Output()); client.Code(err) != name {
			t.Errorf("got %v, want %s", err, name)
		}
	}
}
