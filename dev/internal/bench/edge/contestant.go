package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	messagesv1 "chatapp.dev/api/gen/chatapp/messages/v1"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/dev/internal/seed"
	"chatapp.dev/internal/platform/child"
	"chatapp.dev/internal/platform/ids"
)

// publishers is how many events can be published at a time.
const publishers = 8

// subscription is what every client asks for.
const subscription = `subscription NewMessage($after: Cursor) { newMessage(after: $after) { cursor message {
  id seq body sentAt sender { id } conversation { id } clientId } } }`

// subscribePayload is the payload of the message that subscribes.
func subscribePayload() string {
	payload, err := json.Marshal(map[string]any{
		"operationName": "NewMessage", "query": subscription, "variables": map[string]any{"after": nil},
	})
	if err != nil {
		panic(err) // Maps of strings can be encoded.
	}
	return string(payload)
}

// initPayload is the payload of connection_init for the holder of a token.
func initPayload(token string) string { return `{"authorization":"Bearer ` + token + `"}` }

// contestant is a server that is measured: a process of its own.
type contestant interface {
	// name is such as "ours".
	name() string
	start(ctx context.Context) error
	stop() error
	// count ends the process and says how many goroutines it had.
	count() (goroutines int, err error)
	pid() int
	address() string
	// knowsUsers tells whether an event reaches the clients of one user only.
	knowsUsers() bool
	// greet is what a user's client says.
	greet(user int) hello
	// publish sends the event with a number to a user. Each worker publishes one at a time.
	publish(ctx context.Context, worker, user, number int) error
}

// nameOfOurs is what ChatApp is called among the servers.
const nameOfOurs = "ours"

// ours is ChatApp: graph is measured, and users, messages, MariaDB and Redis are behind it, as in production.
type ours struct {
	stack    *harness.Stack
	process  *harness.Process
	conn     *grpc.ClientConn
	messages messagesv1.MessagesServiceClient
	// people have the clients. Senders write to them, one a worker.
	people, senders []seed.User
}

// settings lift the limits of graph that so many clients of one user would meet. All else is as in production.
var settings = []string{"GRAPH_SOCKET_PER_USER=0"}

func newOurs(stack *harness.Stack, people []seed.User) (*ours, error) {
	conn, err := grpc.NewClient(stack.Messages[0].Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to messages: %w", err)
	}
	return &ours{
		stack: stack, conn: conn, messages: messagesv1.NewMessagesServiceClient(conn),
		senders: people[:publishers], people: people[publishers:],
	}, nil
}

func (*ours) name() string      { return nameOfOurs }
func (o *ours) pid() int        { return o.process.Pid() }
func (o *ours) address() string { return o.process.Addr() }

func (*ours) knowsUsers() bool { return true }

// start starts a graph of its own, since the stack's has other things to do.
func (o *ours) start(ctx context.Context) (err error) {
	if o.process == nil {
		o.process, err = o.stack.StartGraph(ctx, settings...)
		return err
	}
	return o.process.Start(ctx, settings...)
}

func (o *ours) stop() error { return o.process.Stop() }

func (o *ours) count() (int, error) {
	return countGoroutines(o.process.Pid(), o.process.Exited(), o.process.LogFile())
}

func (o *ours) greet(user int) hello {
	return hello{init: initPayload(o.people[user].AccessToken), subscribe: subscribePayload()}
}

// publish sends a message through the messages service, which is not what is measured here.
func (o *ours) publish(ctx context.Context, worker, user, number int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+o.senders[worker].AccessToken)
	_, err := o.messages.SendMessage(ctx, &messagesv1.SendMessageRequest{
		To:       &messagesv1.SendMessageRequest_RecipientId{RecipientId: o.people[user].RawID},
		Body:     body(number),
		ClientId: ids.New().String(),
	})
	if err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	return nil
}

// rival is a server to compare with. Its events are published on Redis.
type rival struct {
	title   string
	program string
	args    []string
	dir     string
	redis   *redis.Client
	channel func(user int) string
	// payload returns an event with a number, as the program takes it from Redis.
	payload func(number int) string
	hello   func(user int) hello

	process *child.Process
	serves  string
}

func (r *rival) name() string         { return r.title }
func (r *rival) pid() int             { return r.process.Pid() }
func (r *rival) address() string      { return r.serves }
func (r *rival) greet(user int) hello { return r.hello(user) }

func (r *rival) knowsUsers() bool { return r.channel(0) != r.channel(1) }

func (r *rival) publish(ctx context.Context, _, user, number int) error {
	if err := r.redis.Publish(ctx, r.channel(user), r.payload(number)).Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

func (r *rival) logFile() string {
	return filepath.Join(r.dir, strings.ReplaceAll(r.title, " ", "-")+".log")
}

// start starts the program and learns from it where it serves.
func (r *rival) start(context.Context) error {
	log, err := os.OpenFile(r.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", r.title, err)
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", r.title, err)
	}
	defer read.Close()
	defer write.Close()
	cmd := exec.Command(r.program, append([]string{r.redis.Options().Addr}, r.args...)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = write, log, r.dir
	if r.process, err = child.Start(cmd); err != nil {
		return err
	}
	// The pipe ends with the program, if that fails.
	if err := errors.Join(write.Close(), read.SetReadDeadline(time.Now().Add(patience))); err != nil {
		return fmt.Errorf("start %s: %w", r.title, err)
	}
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		said, _ := os.ReadFile(r.logFile())
		return errors.Join(fmt.Errorf("start %s: %w\n%s", r.title, noEOF(err), said), r.process.Kill())
	}
	r.serves = strings.TrimSpace(line)
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it ended")
	}
	return err
}

// stop ends the program, of which nothing orderly is expected.
func (r *rival) stop() error { return r.process.Kill() }

func (r *rival) count() (int, error) {
	return countGoroutines(r.process.Pid(), r.process.Done(), r.logFile())
}

// sample stands for what varies in ChatApp's messages but means nothing here: ids and cursors as long as ours.
const (
	sampleID           = "dQGb1mVMKndhvpCtY0Xq7Z8"
	sampleConversation = "YwGb1mVMKndhvpCtY0Xq7Z8"
	sampleMessage      = "bQGb1mVMKndhvpCtY0Xq7Z8AAAAAAAAAKg"
	sampleCursor       = "AQGb1mVMKndhvpCtY0Xq7Z8BAZvWZUwqd2G-kK1jRernnwAAAAAAAAAqM0qJb1mVMKk"
	sampleTime         = "2026-01-01T12:00:00.123456Z"
)

// newStock returns gqlgen with its stock transport. A subscription takes its user's channel of Redis.
func newStock(programs *harness.Programs, dir string, rdb *redis.Client) *rival {
	return &rival{
		title: "stock gqlgen", program: programs.Path("stock"), dir: dir, redis: rdb,
		channel: func(user int) string { return fmt.Sprintf("stock:user-%d", user) },
		payload: func(number int) string {
			return fmt.Sprintf(`{"cursor":%q,"message":{"id":%q,"seq":%d,"body":%q,"sentAt":%q,`+
				`"sender":{"id":%q},"conversation":{"id":%q},"clientId":null}}`,
				sampleCursor, sampleMessage, number%eventsPerFleet, body(number), sampleTime, sampleID, sampleConversation)
		},
		hello: func(user int) hello {
			return hello{init: initPayload(fmt.Sprintf("user-%d", user)), subscribe: subscribePayload()}
		},
	}
}

// newBare returns gorilla/websocket and nothing else, which sends what is published to whoever is connected.
func newBare(programs *harness.Programs, dir string, rdb *redis.Client, joined bool) *rival {
	r := &rival{
		title: "bare gorilla", program: programs.Path("bare"), dir: dir, redis: rdb,
		channel: func(int) string { return "bare" },
		payload: func(number int) string {
			return fmt.Sprintf(`{"id":"1","type":"next","payload":{"data":{"newMessage":{"cursor":%q,"message":{"id":%q,`+
				`"seq":%d,"body":%q,"sentAt":%q,"sender":{"id":%q},"conversation":{"id":%q},"clientId":null}}}}}`,
				sampleCursor, sampleMessage, number%eventsPerFleet, body(number), sampleTime, sampleID, sampleConversation)
		},
		hello: func(int) hello { return hello{} },
	}
	if joined {
		r.title, r.args = "bare gorilla, joined", []string{"joined"}
	}
	return r
}
