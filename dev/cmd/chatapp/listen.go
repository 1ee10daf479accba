package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/internal/platform/run"
)

// listenCommand is chatapp listen.
type listenCommand struct {
	run.Logging `set:"log_level=warn"`

	Token string `required:"" placeholder:"TOKEN" help:"Access token of the person who listens, as signIn gives it."`
	After string `placeholder:"CURSOR" help:"Begin with what followed this cursor, instead of now."`
	Count int    `help:"End after so many messages; 0 goes on until Ctrl-C."`
	URL   string `placeholder:"URL" help:"GraphQL endpoint, such as http://localhost:8080/graphql, instead of that of the ChatApp that runs on --data."`
	Data  string `default:".chatapp" placeholder:"DIR" help:"Data folder of the ChatApp to listen to."`
}

// Validate names the first setting that is wrong.
func (l *listenCommand) Validate() error {
	if l.Count < 0 {
		return run.Invalid(&l.Count, "must be 0 or more, but is %d", l.Count)
	}
	if l.URL != "" && !strings.HasPrefix(l.URL, "http://") && !strings.HasPrefix(l.URL, "https://") {
		return run.Invalid(&l.URL, "must begin with http:// or https://, but is %q", l.URL)
	}
	return nil
}

// Run prints a line of JSON for each message that arrives, and goes on where it was when the connection breaks.
func (l *listenCommand) Run(ctx context.Context) error { return l.run(ctx, os.Stdout) }

// heard is a line of the output.
type heard struct {
	Cursor string    `json:"cursor"`
	Seq    int       `json:"seq"`
	From   string    `json:"from"`
	Body   string    `json:"body"`
	SentAt time.Time `json:"sentAt"`
}

func (l *listenCommand) run(ctx context.Context, out io.Writer) error {
	url := l.URL
	if url == "" {
		s, err := findSystem(l.Data)
		if err != nil {
			return err
		}
		url = s.URL + "/graphql"
	}
	listener := client.New(url).As(client.User{}, l.Token)
	defer listener.CloseIdle()
	if l.After == "" {
		var err error
		if l.After, err = listener.Cursor(ctx); err != nil {
			return fmt.Errorf("read the cursor to begin at: %w", err)
		}
	}
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	follower := listener.Follow(ctx, l.After)
	defer follower.Close()
	n := 0
	for event := range follower.Events() {
		m := event.Message
		err := lines.Encode(heard{
			Cursor: event.Cursor, Seq: m.Seq, From: m.Sender.Username, Body: m.Body, SentAt: m.SentAt,
		})
		if err != nil {
			return fmt.Errorf("write a message: %w", err)
		}
		if n++; n == l.Count {
			return nil
		}
	}
	return errors.Join(follower.Err(), ctx.Err())
}
