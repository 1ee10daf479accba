package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatapp.dev/dev/internal/client"
	"chatapp.dev/dev/internal/harness"
	"chatapp.dev/internal/platform/ids"
)

// shardChannels returns how many users' channels a node of the stack's Redis Cluster sends to somebody.
func shardChannels(t *testing.T, node int, stack *harness.Stack) int {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: stack.RedisCluster.Nodes()[node].Addr()})
	defer c.Close()
	channels, err := c.PubSubShardChannels(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	return len(channels)
}

// chatter is messages that two people send each other without a pause.
type chatter struct {
	streams []*stream
	want    []client.Message
	sent    chan struct{}
}

// talk makes one of two people write to the other until ctx ends, and follows both at every graph process.
func talk(ctx context.Context, t *testing.T, stack *harness.Stack, talking *sync.WaitGroup, from, to *client.Client) *chatter {
	t.Helper()
	c := &chatter{streams: followEverywhere(t, stack, from, to), sent: make(chan struct{})}
	c.want = []client.Message{established(t, from, to, c.streams)}
	at := at(stack, from)
	talking.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			// Redis is never a reason to fail.
			m, err := at[n%len(at)].Send(t.Context(), client.Draft{
				RecipientID: to.User.ID, Body: fmt.Sprint("while a primary dies ", n), ClientID: ids.New().String(),
			})
			if err != nil {
				t.Errorf("message %d: %v", n, err)
				return
			}
			c.want = append(c.want, m)
			select {
			case c.sent <- struct{}{}:
			case <-ctx.Done():
			}
		}
	})
	return c
}

// The comparison of heads that would find what was lost in the end is off: what is missed while a primary dies is found
// because its loss is noticed.
func TestPrimaryOfARedisClusterIsKilledWhileMessagesFlow(t *testing.T) {
	stack := ownStack(t, onSharedMySQL(t, harness.Options{
		Messages: 2, Graphs: 2, RedisCluster: true, Env: []string{"GRAPH_HUB_HEAD_INTERVAL=1h"},
	}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var talking sync.WaitGroup
	var chatters []*chatter
	for range 3 {
		chatters = append(chatters, talk(ctx, t, stack, &talking, account(t, stack, "Ann"), account(t, stack, "Bob")))
	}
	progress := func() {
		t.Helper()
		for _, c := range chatters {
			for range 10 {
				select {
				case <-c.sent:
				case <-time.After(patience):
					t.Fatal("nothing is sent any more")
				}
			}
		}
	}
	progress()

	// The primary with the most channels, which has some.
	killed, channels := 0, 0
	for node := range 3 {
		if n := shardChannels(t, node, stack); n > channels {
			killed, channels = node, n
		}
	}
	if channels == 0 {
		t.Fatal("no primary has a channel")
	}
	if err := stack.RedisCluster.Nodes()[killed].Kill(); err != nil {
		t.Fatal(err)
	}
	progress()
	eventually(t, "the promoted replica has the channels", func(context.Context) (bool, error) {
		return shardChannels(t, killed+3, stack) == channels, nil
	})
	progress()
	if err := stack.RedisCluster.Nodes()[killed].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	progress()
	stop()
	talking.Wait()
	if t.Failed() {
		return
	}
	for _, c := range chatters {
		for _, s := range c.streams {
			wantOnceInOrder(t, s.name, s.until(t, c.want[len(c.want)-1]), c.want)
		}
	}
	// What else goes through Redis does, too.
	phone, laptop := devices(t, stack, "Cyd")
	refusedWithin(t, stack, phone, signOut(t, phone), 5*time.Second)
	accepted(t, stack, laptop)
}
