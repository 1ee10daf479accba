package redisserver

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// ended says whether none of the servers runs any more.
func ended(t *testing.T, servers []*Server) {
	t.Helper()
	for _, s := range servers {
		if s.process.Running() {
			t.Errorf("the redis-server on port %d was left behind", s.port)
		}
	}
}

func TestClusterSurvivesTheLossOfAPrimary(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := StartCluster(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ended(t, c.Nodes())
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(c.dir.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", c.dir.Path, err)
		}
	}()
	lost, replica := c.Nodes()[1], c.Nodes()[4]
	if err := lost.Kill(); err != nil {
		t.Fatal(err)
	}
	is := func(role string) func(map[string]string) bool {
		return func(info map[string]string) bool { return info["role"] == role }
	}
	if err := await(ctx, []*Server{replica}, "INFO replication", is("master")); err != nil {
		t.Fatal(err)
	}
	if err := lost.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := await(ctx, []*Server{lost}, "INFO replication", is("slave")); err != nil {
		t.Fatal(err)
	}
	if err := c.awaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestSentinelReplacesALostMaster(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := StartSentinel(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ended(t, append([]*Server{s.Master, s.Replica}, s.Sentinels...))
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.dir.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", s.dir.Path, err)
		}
	}()
	if err := s.Master.Kill(); err != nil {
		t.Fatal(err)
	}
	err = await(ctx, []*Server{s.Replica}, "INFO replication", func(info map[string]string) bool {
		return info["role"] == "master"
	})
	if err != nil {
		t.Fatal(err)
	}
}
