package redistest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatapp.dev/internal/platform/redisserver"
)

// Cluster is a Redis Cluster of three primaries and a replica of each. It ends with the test.
type Cluster struct {
	// URL names it in a setting.
	URL string

	t       testing.TB
	cluster *redisserver.Cluster
}

// StartCluster starts a cluster and returns once it serves.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	cluster, err := redisserver.StartCluster(ctx, nil)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Errorf("redistest: stop the cluster: %v", err)
		}
	})
	return &Cluster{URL: cluster.URL(), t: t, cluster: cluster}
}

// Nodes returns the addresses of all nodes. The first three begin as primaries, the others as their replicas.
func (c *Cluster) Nodes() []string {
	var addrs []string
	for _, node := range c.cluster.Nodes() {
		addrs = append(addrs, node.Addr())
	}
	return addrs
}

func (c *Cluster) node(addr string) *redisserver.Server {
	c.t.Helper()
	for _, node := range c.cluster.Nodes() {
		if node.Addr() == addr {
			return node
		}
	}
	c.t.Fatalf("redistest: the cluster has no node %s", addr)
	return nil
}

// Kill ends a node as the loss of its machine would. Its replica takes its place within some seconds.
func (c *Cluster) Kill(addr string) {
	c.t.Helper()
	if err := c.node(addr).Kill(); err != nil {
		c.t.Fatalf("redistest: kill a node: %v", err)
	}
}

// Pid returns the process id of a node, for a test that wants to suspend it.
func (c *Cluster) Pid(addr string) int { return c.node(addr).Pid() }

// Restart brings a node back, as a replica if it has been replaced.
func (c *Cluster) Restart(addr string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.node(addr).Restart(ctx); err != nil {
		c.t.Fatalf("redistest: restart a node: %v", err)
	}
}

// Migrate gives the slot of a key to another primary, as an operator does who spreads load. The slot must hold no keys.
func (c *Cluster) Migrate(key, to string) {
	c.t.Helper()
	ctx := context.Background()
	clients := make(map[string]*redis.Client)
	for _, addr := range c.Nodes() {
		clients[addr] = redis.NewClient(&redis.Options{Addr: addr})
		defer clients[addr].Close()
	}
	target := clients[to]
	slot := target.ClusterKeySlot(ctx, key).Val()
	shards, err := target.ClusterShards(ctx).Result()
	if err != nil {
		c.t.Fatalf("redistest: read the slots: %v", err)
	}
	var from, fromID string
	for _, shard := range shards {
		served := slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool { return r.Start <= slot && slot <= r.End })
		for _, node := range shard.Nodes {
			if served && node.Role == "master" {
				from, fromID = net.JoinHostPort(node.IP, strconv.FormatInt(node.Port, 10)), node.ID
			}
		}
	}
	toID, err := target.Do(ctx, "cluster", "myid").Text()
	if err != nil || from == "" || from == to {
		c.t.Fatalf("redistest: slot %d can't be moved from %q to %q: %v", slot, from, to, err)
	}
	// In the order that the documentation of CLUSTER SETSLOT gives.
	for _, step := range []struct {
		at   string
		args []any
	}{
		{to, []any{"cluster", "setslot", slot, "importing", fromID}},
		{from, []any{"cluster", "setslot", slot, "migrating", toID}},
		{to, []any{"cluster", "setslot", slot, "node", toID}},
		{from, []any{"cluster", "setslot", slot, "node", toID}},
	} {
		if err := clients[step.at].Do(ctx, step.args...).Err(); err != nil {
			c.t.Fatalf("redistest: %s at %s: %v", fmt.Sprint(step.args...), step.at, err)
		}
	}
}

// Sentinel is a master and a replica that three Sentinels watch. It ends with the test.
type Sentinel struct {
	// URL names it in a setting.
	URL string
	// Master and Replica are the addresses of what begins as such, and Sentinels those of the Sentinels.
	Master, Replica string
	Sentinels       []string

	t        testing.TB
	sentinel *redisserver.Sentinel
}

// StartSentinel starts the servers and returns once a failover would work.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	sentinel, err := redisserver.StartSentinel(ctx, nil)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() {
		if err := sentinel.Stop(); err != nil {
			t.Errorf("redistest: stop what Sentinel watches: %v", err)
		}
	})
	s := &Sentinel{
		URL: sentinel.URL(), Master: sentinel.Master.Addr(), Replica: sentinel.Replica.Addr(), t: t, sentinel: sentinel,
	}
	for _, server := range sentinel.Sentinels {
		s.Sentinels = append(s.Sentinels, server.Addr())
	}
	return s
}

// KillMaster ends what began as the master. The replica takes its place within some seconds.
func (s *Sentinel) KillMaster() {
	s.t.Helper()
	if err := s.sentinel.Master.Kill(); err != nil {
		s.t.Fatalf("redistest: kill the master: %v", err)
	}
}

// Isolate cuts what began as the master off from the Sentinels, as a partition of the network does, while those who are
// connected to it stay so: it accepts no new connection, because it asks for a password that nobody knows. The replica
// takes its place, and it goes on believing that it is the master.
func (s *Sentinel) Isolate() {
	s.t.Helper()
	ctx := context.Background()
	master := redis.NewClient(&redis.Options{Addr: s.Master, PoolSize: 1})
	defer master.Close()
	if err := master.ConfigSet(ctx, "requirepass", "nobody knows").Err(); err != nil {
		s.t.Fatalf("redistest: isolate the master: %v", err)
	}
	list, err := master.ClientList(ctx).Result()
	if err != nil {
		s.t.Fatalf("redistest: isolate the master: %v", err)
	}
	for _, id := range sentinelConnections(list) {
		if err := master.ClientKillByFilter(ctx, "id", id).Err(); err != nil {
			s.t.Fatalf("redistest: isolate the master: %v", err)
		}
	}
}

// sentinelConnections returns the ids of the connections of Sentinels in what CLIENT LIST answers. They have names.
func sentinelConnections(list string) []string {
	var ids []string
	for line := range strings.Lines(list) {
		if !strings.Contains(line, " name=sentinel-") {
			continue
		}
		for field := range strings.FieldsSeq(line) {
			if id, ok := strings.CutPrefix(field, "id="); ok {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
