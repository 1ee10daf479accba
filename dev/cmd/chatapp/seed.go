package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"chatapp.dev/dev/internal/seed"
	"chatapp.dev/internal/platform/rpc"
	"chatapp.dev/internal/platform/run"
)

// bulkDeadline is for calls that store a thousand messages. The services' own deadline comes first.
const bulkDeadline = time.Minute

// seedCommand is chatapp seed.
type seedCommand struct {
	run.Logging `set:"log_level=warn"`

	Users         int    `default:"10" help:"How many people to make. Those who are there already are only signed in."`
	Conversations int    `default:"0" help:"How many of their conversations to fill, as evenly among them as possible; the last ones are notes to self."`
	Messages      int    `default:"0" help:"How many messages to add, all together, the same number to each conversation."`
	Seed          uint64 `default:"1" help:"What chooses names and texts: the same again makes the same."`
	Prefix        string `default:"seed" help:"What usernames begin with; a number follows, from 1."`
	Password      string `help:"Everybody's password. Without one, only the printed tokens open the accounts."`

	Data         string   `default:".chatapp" placeholder:"DIR" help:"Data folder of the ChatApp to fill."`
	UsersAddr    run.Addr `placeholder:"HOST:PORT" help:"Where users serves gRPC, instead of finding it by --data. It must run with USERS_DEVELOPMENT."`
	MessagesAddr run.Addr `placeholder:"HOST:PORT" help:"Where messages serves gRPC, instead of finding it by --data. It must run with MESSAGES_DEVELOPMENT."`
}

// Validate names the first setting that is wrong.
func (s *seedCommand) Validate() error {
	switch {
	case s.Users < 1:
		return run.Invalid(&s.Users, "must be 1 or more, but is %d", s.Users)
	case s.Conversations < 0 || s.Conversations > seed.MaxConversations(s.Users):
		return run.Invalid(&s.Conversations, "must be 0 to %d, the most that %d people can have, but is %d",
			seed.MaxConversations(s.Users), s.Users, s.Conversations)
	case s.Messages < s.Conversations:
		return run.Invalid(&s.Messages, "must be at least %d, since a conversation begins with a message, but is %d",
			s.Conversations, s.Messages)
	case s.Messages > 0 && s.Conversations == 0:
		return run.Invalid(&s.Conversations, "must be 1 or more with --messages")
	case s.UsersAddr == "" && s.MessagesAddr != "":
		return run.Invalid(&s.UsersAddr, "is needed with --messages-addr")
	case s.UsersAddr != "" && s.MessagesAddr == "":
		return run.Invalid(&s.MessagesAddr, "is needed with --users-addr")
	}
	return nil
}

// Run fills a system and prints a line of JSON for each person.
func (s *seedCommand) Run(ctx context.Context) error { return s.run(ctx, os.Stdout, os.Stderr) }

func (s *seedCommand) run(ctx context.Context, out, progress io.Writer) (err error) {
	usersAddr, messagesAddr := s.UsersAddr.String(), s.MessagesAddr.String()
	if usersAddr == "" {
		found, err := findSystem(s.Data)
		if err != nil {
			return err
		}
		usersAddr, messagesAddr = found.Users, found.Messages
	}
	users, err := rpc.Dial(usersAddr, rpc.WithDeadline(bulkDeadline))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, users.Close()) }()
	messages, err := rpc.Dial(messagesAddr, rpc.WithDeadline(bulkDeadline))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, messages.Close()) }()
	people, err := seed.Run(ctx, users, messages, seed.Options{
		Users: s.Users, Conversations: s.Conversations, Messages: s.Messages, Seed: s.Seed, Prefix: s.Prefix,
		Password: s.Password, Progress: progress,
	})
	if err != nil {
		return err
	}
	lines := json.NewEncoder(out)
	for _, person := range people {
		if err := lines.Encode(person); err != nil {
			return fmt.Errorf("write a line: %w", err)
		}
	}
	return nil
}
