// Package seed fills a running ChatApp in development with people and conversations, in bulk, for demonstrations, load and
// tests.
//
// The same options give the same people, who talks with whom, and the same texts in the same order; ids, times and tokens
// are new. People that exist are signed in as they are, and conversations that exist grow: seeding twice gives everybody
// everything twice but the accounts. When it fails, what was made until then stays.
package seed

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	usersv1 "chatapp.dev/api/gen/chatapp/users/v1"
)

const (
	usersPerCall    = 500
	messagesPerCall = 1000
	bytesPerCall    = 1 << 20
	// conversationsAtOnce is how many conversations grow at the same time. A conversation's own messages are stored one
	// call after the other, since their order is part of it.
	conversationsAtOnce = 4
	progressInterval    = 2 * time.Second
)

// Options says what to make.
type Options struct {
	// Users, Conversations and Messages are how many of each. Everybody is in as many conversations as everybody else,
	// give or take one or two, and all conversations are as long. A conversation needs a message: there cannot be more.
	Users, Conversations, Messages int
	// Seed chooses names and texts.
	Seed uint64
	// Prefix begins every username; a number follows, from 1.
	Prefix string
	// Password is everybody's; empty makes accounts that only the tokens open.
	Password string
	// Progress is shown what has been made; nil shows nothing.
	Progress io.Writer
}

// MaxConversations is how many conversations so many users can have, with themselves included.
func MaxConversations(users int) int { return users * (users + 1) / 2 }

// User is an account that was made.
type User struct {
	ID          string `json:"id"` // The global id of the GraphQL API.
	Username    string `json:"username"`
	AccessToken string `json:"accessToken"`

	// RawID is the id of the services.
	RawID []byte `json:"-"`
}

// Run makes users through the DevelopmentService of users and messages, and returns them.
func Run(ctx context.Context, users, messages grpc.ClientConnInterface, opts Options) ([]User, error) {
	if opts.Progress == nil {
		opts.Progress = io.Discard
	}
	people, err := makeUsers(ctx, usersv1.NewDevelopmentServiceClient(users), opts)
	if err != nil {
		return nil, err
	}
	return people, makeMessages(ctx, messagesv1.NewDevelopmentServiceClient(messages), people, opts)
}

func makeUsers(ctx context.Context, service usersv1.DevelopmentServiceClient, opts Options) ([]User, error) {
	people := make([]User, 0, opts.Users)
	for len(people) < opts.Users {
		req := &usersv1.CreateUsersRequest{Password: opts.Password}
		for i := len(people); i < min(len(people)+usersPerCall, opts.Users); i++ {
			req.Users = append(req.Users, &usersv1.NewUser{
				Username:    opts.Prefix + strconv.Itoa(i+1),
				DisplayName: name(source(opts.Seed, streamNames, i)),
			})
		}
		res, err := service.CreateUsers(ctx, req)
		if err != nil {
			return nil, explain("make users", err)
		}
		for _, made := range res.GetUsers() {
			people = append(people, User{
				ID:          globalID(made.GetUser().GetId()),
				Username:    made.GetUser().GetUsername(),
				AccessToken: made.GetAccessToken().GetToken(),
				RawID:       made.GetUser().GetId(),
			})
		}
		fmt.Fprintf(opts.Progress, "users: %d of %d\n", len(people), opts.Users)
	}
	return people, nil
}

// explain says what to do about a service that does not offer the bulk calls.
func explain(doing string, err error) error {
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%s: the service was not started with its setting for development", doing)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// globalID writes a user's id as graph does for its clients: base64 of the type's letter and the id.
func globalID(raw []byte) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{'u'}, raw...))
}

func makeMessages(
	ctx context.Context, service messagesv1.DevelopmentServiceClient, people []User, opts Options,
) error {
	var stored atomic.Int64
	show := func() { fmt.Fprintf(opts.Progress, "messages: %d of %d\n", stored.Load(), opts.Messages) }
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	finished := make(chan error, 1)
	go func() {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(conversationsAtOnce)
		i := 0
		for a, b := range pairs(len(people), opts.Conversations) {
			length := share(opts.Messages, opts.Conversations, i)
			texts := source(opts.Seed, streamTexts, i)
			i++
			group.Go(func() error {
				return fillConversation(ctx, service, people[a].RawID, people[b].RawID, length, texts, &stored)
			})
		}
		finished <- group.Wait()
	}()
	for {
		select {
		case err := <-finished:
			if opts.Messages > 0 {
				show()
			}
			return err
		case <-ticker.C:
			show()
		}
	}
}

// share is the length of conversation i, when all of them are as equal as they can be.
func share(messages, conversations, i int) int {
	length := messages / conversations
	if i < messages%conversations {
		length++
	}
	return length
}

func fillConversation(
	ctx context.Context, service messagesv1.DevelopmentServiceClient, user, other []byte, length int, r *rand.Rand,
	stored *atomic.Int64,
) error {
	for length > 0 {
		req := &messagesv1.ImportMessagesRequest{UserId: user, WithUserId: other}
		for bytes := 0; length > 0 && bytes < bytesPerCall && len(req.Messages) < messagesPerCall; length-- {
			m := &messagesv1.ImportedMessage{FromOther: r.IntN(2) == 0, Body: text(r)}
			req.Messages = append(req.Messages, m)
			bytes += len(m.Body)
		}
		if _, err := service.ImportMessages(ctx, req); err != nil {
			return explain("store messages", err)
		}
		stored.Add(int64(len(req.Messages)))
	}
	return nil
}

// pairs yields who talks with whom: so many different pairs of n people. Everybody talks with the next one, then with the
// next but one, and so on; at last with themselves.
func pairs(n, count int) func(yield func(a, b int) bool) {
	return func(yield func(a, b int) bool) {
		for _, distance := range append(upTo(n/2), 0) {
			people := n
			if 2*distance == n {
				people = n / 2 // From half way round, these would come again.
			}
			for a := range people {
				if count == 0 || !yield(a, (a+distance)%n) {
					return
				}
				count--
			}
		}
	}
}

// upTo returns 1 to n.
func upTo(n int) []int {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i + 1
	}
	return numbers
}

// The streams of random numbers: what is made of one does not change with how much was made of another.
const (
	streamNames = iota
	streamTexts
)

// source returns the random numbers of one person or conversation.
func source(seed uint64, stream, i int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(stream)<<32|uint64(i)))
}
