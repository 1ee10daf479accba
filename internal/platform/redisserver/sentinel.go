package redisserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"chatapp.dev/internal/platform/child"
)

const (
	sentinels = 3
	// masterName is what Sentinel calls the master.
	masterName = "chatapp"
	// downAfter is after how many milliseconds of silence a Sentinel takes the master for dead, and failoverTimeout
	// how long after a failover that did not work out the next is tried, halved.
	downAfter       = 1000
	failoverTimeout = 4000
)

// Sentinel is a master and a replica with three Sentinels, two of which agree that the master is dead.
type Sentinel struct {
	// Master and Replica say what they begin as.
	Master, Replica *Server
	// Sentinels are what watches them.
	Sentinels []*Server

	dir *child.TempDir
}

// StartSentinel starts a master, a replica and Sentinels, and returns once a failover would work. ctx bounds the start
// only. The error is ErrNotInstalled, wrapped, when there is no Redis on this machine. A nil log means none.
func StartSentinel(ctx context.Context, log *slog.Logger) (_ *Sentinel, err error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s := &Sentinel{}
	if s.dir, err = child.NewTempDir("chatapp-redis-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	start := func(name string, args ...string) (*Server, error) {
		dir := filepath.Join(s.dir.Path, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of a redis-server: %w", err)
		}
		server := &Server{program: program, args: slices.Concat(args, []string{"--dir", dir}), log: logOrNone(log)}
		return server, server.launchFirst(ctx)
	}
	args := slices.Concat(storeNothing, []string{"--repl-diskless-sync-delay", "0"})
	if s.Master, err = start("master", args...); err != nil {
		return nil, err
	}
	args = slices.Concat(args, []string{"--replicaof", "127.0.0.1 " + strconv.Itoa(s.Master.port)})
	if s.Replica, err = start("replica", args...); err != nil {
		return nil, err
	}
	err = await(ctx, []*Server{s.Replica}, "INFO replication", func(info map[string]string) bool {
		return info["master_link_status"] == "up"
	})
	if err != nil {
		return nil, err
	}
	s.Sentinels = make([]*Server, sentinels)
	var starts errgroup.Group
	for i := range s.Sentinels {
		starts.Go(func() (err error) {
			name := "sentinel-" + strconv.Itoa(i+1)
			file, err := s.configure(name)
			if err != nil {
				return err
			}
			s.Sentinels[i], err = start(name, file, "--sentinel")
			return err
		})
	}
	if err := starts.Wait(); err != nil {
		return nil, err
	}
	err = await(ctx, s.Sentinels, "INFO sentinel", func(info map[string]string) bool {
		return strings.HasSuffix(info["master0"], fmt.Sprintf("slaves=1,sentinels=%d", sentinels)) &&
			strings.Contains(info["master0"], "status=ok")
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// configure writes the file that a Sentinel reads, and later writes itself.
func (s *Sentinel) configure(name string) (string, error) {
	dir := filepath.Join(s.dir.Path, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the folder of a Sentinel: %w", err)
	}
	config := fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d\n", masterName, s.Master.port, sentinels/2+1) +
		fmt.Sprintf("sentinel down-after-milliseconds %s %d\n", masterName, downAfter) +
		fmt.Sprintf("sentinel failover-timeout %s %d\n", masterName, failoverTimeout)
	file := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return "", fmt.Errorf("configure a Sentinel: %w", err)
	}
	return file, nil
}

// URL names what Sentinel watches in a setting.
func (s *Sentinel) URL() string {
	return "redis+sentinel://" + strings.Join(addresses(s.Sentinels), ",") + "/" + masterName
}

// Stop ends all servers. They can't be started again.
func (s *Sentinel) Stop() error {
	var servers []*Server
	for _, server := range append([]*Server{s.Master, s.Replica}, s.Sentinels...) {
		if server != nil { // Else its start has failed.
			servers = append(servers, server)
		}
	}
	return stopAll(servers, s.dir)
}
