package redisserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"chatapp.dev/internal/platform/child"
)

const (
	primaries = 3
	slots     = 16384
	// nodeTimeout is after how many milliseconds of silence the nodes of a cluster take one of theirs for dead. A
	// replica takes its place about a second later.
	nodeTimeout = 1000
)

// Cluster is a Redis Cluster of three primaries and a replica of each. Its nodes come back by Restart, as replicas if
// they have been replaced.
type Cluster struct {
	nodes []*Server
	dir   *child.TempDir
}

// StartCluster starts a cluster and returns once it serves and every replica is in step. ctx bounds the start only. The
// error is ErrNotInstalled, wrapped, when there is no Redis on this machine. A nil log means none.
func StartCluster(ctx context.Context, log *slog.Logger) (*Cluster, error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for range portAttempts {
		var c *Cluster
		if c, err = startCluster(ctx, program, logOrNone(log)); !errors.Is(err, errPortTaken) {
			return c, err
		}
	}
	return nil, err
}

func startCluster(ctx context.Context, program string, log *slog.Logger) (_ *Cluster, err error) {
	c := &Cluster{}
	if c.dir, err = child.NewTempDir("chatapp-redis-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	busPorts := make([]int, 2*primaries)
	for i := range busPorts {
		s := &Server{program: program, log: log}
		if s.port, err = child.FreePort(); err != nil {
			return nil, err
		}
		if busPorts[i], err = child.FreePort(); err != nil {
			return nil, err
		}
		dir := filepath.Join(c.dir.Path, strconv.Itoa(s.port))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of a node: %w", err)
		}
		s.args = append([]string{
			"--dir", dir, "--repl-diskless-sync-delay", "0",
			"--cluster-enabled", "yes", "--cluster-config-file", filepath.Join(dir, "nodes.conf"),
			"--cluster-port", strconv.Itoa(busPorts[i]), "--cluster-node-timeout", strconv.Itoa(nodeTimeout),
			// Each primary keeps its own replica, which takes over however long it has been out of touch.
			"--cluster-allow-replica-migration", "no", "--cluster-replica-validity-factor", "0",
		}, storeNothing...)
		c.nodes = append(c.nodes, s)
	}
	if err := c.introduce(busPorts); err != nil {
		return nil, err
	}
	var starts errgroup.Group
	for _, s := range c.nodes {
		starts.Go(func() error { return s.Restart(ctx) })
	}
	if err := starts.Wait(); err != nil {
		return nil, err
	}
	if err := c.awaitReady(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// introduce gives every node the file that a node reads at its start to know itself and the others. It spares the
// seconds in which strangers get to know each other.
func (c *Cluster) introduce(busPorts []int) error {
	ids := make([]string, len(c.nodes))
	for i := range ids {
		var id [20]byte
		_, _ = rand.Read(id[:]) // It never fails.
		ids[i] = hex.EncodeToString(id[:])
	}
	for self, s := range c.nodes {
		var file strings.Builder
		for i, other := range c.nodes {
			flags, primary, served := "master", "-", ""
			if i < primaries {
				served = fmt.Sprintf(" %d-%d", i*slots/primaries, (i+1)*slots/primaries-1)
			} else {
				flags, primary = "slave", ids[i-primaries]
			}
			if i == self {
				flags = "myself," + flags
			}
			epoch := i%primaries + 1
			fmt.Fprintf(&file, "%s %s@%d %s %s 0 0 %d connected%s\n", ids[i], other.Addr(), busPorts[i], flags, primary, epoch, served)
		}
		fmt.Fprintf(&file, "vars currentEpoch %d lastVoteEpoch 0\n", primaries)
		path := filepath.Join(c.dir.Path, strconv.Itoa(s.port), "nodes.conf")
		if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
			return fmt.Errorf("write what a node knows of the cluster: %w", err)
		}
	}
	return nil
}

func (c *Cluster) awaitReady(ctx context.Context) error {
	serves := func(info map[string]string) bool {
		return info["cluster_state"] == "ok" && info["cluster_slots_ok"] == strconv.Itoa(slots)
	}
	inStep := func(info map[string]string) bool {
		return info["connected_slaves"] == "1" || info["master_link_status"] == "up"
	}
	return errors.Join(
		await(ctx, c.nodes, "CLUSTER INFO", serves),
		await(ctx, c.nodes, "INFO replication", inStep),
	)
}

// Nodes returns the nodes. The first three begin as primaries, each of a third of the slots in ascending order; the
// others are their replicas, in the same order.
func (c *Cluster) Nodes() []*Server { return c.nodes }

// URL names the cluster in a setting.
func (c *Cluster) URL() string { return "redis+cluster://" + strings.Join(addresses(c.nodes), ",") }

// Stop ends all nodes. The cluster can't be started again.
func (c *Cluster) Stop() error { return stopAll(c.nodes, c.dir) }

func addresses(servers []*Server) []string {
	addrs := make([]string, len(servers))
	for i, s := range servers {
		addrs[i] = s.Addr()
	}
	return addrs
}

// stopAll ends servers, at the same time since each takes a moment, and removes their folder.
func stopAll(servers []*Server, dir *child.TempDir) error {
	var (
		stopping sync.WaitGroup
		errs     = make([]error, len(servers)+1)
	)
	for i, s := range servers {
		stopping.Go(func() { errs[i] = s.Stop() })
	}
	stopping.Wait()
	errs[len(servers)] = dir.Remove()
	return errors.Join(errs...)
}
