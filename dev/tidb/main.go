// Command tidb serves the MySQL protocol on 127.0.0.1 with a TiDB that keeps its data in a folder: TiDB's own SQL layer
// on unistore, the storage engine of its tests. It is how ChatApp runs on a machine that has Go but no MariaDB.
//
// It is a program and a module of its own because TiDB needs an old gRPC. It is for development: root has no password
// and every local user can connect.
//
// What can be lost: nothing that was committed, whatever ends the process or the machine, and no transaction is ever
// kept in part. Unistore does not promise that by itself; see keepCommits.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pingcap/tidb/pkg/config"
	"github.com/pingcap/tidb/pkg/ddl"
	"github.com/pingcap/tidb/pkg/domain"
	"github.com/pingcap/tidb/pkg/executor"
	"github.com/pingcap/tidb/pkg/kv"
	"github.com/pingcap/tidb/pkg/resourcemanager"
	"github.com/pingcap/tidb/pkg/server"
	"github.com/pingcap/tidb/pkg/session"
	kvstore "github.com/pingcap/tidb/pkg/store"
	"github.com/pingcap/tidb/pkg/store/mockstore"
	unistore "github.com/pingcap/tidb/pkg/store/mockstore/unistore/config"
	"github.com/pingcap/tidb/pkg/util/disk"
	"github.com/pingcap/tidb/pkg/util/logutil"
	"github.com/pingcap/tidb/pkg/util/metricsutil"
)

func main() {
	dir := flag.String("dir", "", "folder for the data, made when absent (required)")
	port := flag.Uint("port", 4000, "TCP port on 127.0.0.1")
	flag.Parse()
	if *dir == "" || *port == 0 || *port > 65535 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *dir, *port); err != nil {
		fmt.Fprintln(os.Stderr, "tidb:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. The order of the steps is that of TiDB's own main.
func run(ctx context.Context, dir string, port uint) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	configure(dir, port)
	if err := logutil.InitLogger(config.GetGlobalConfig().Log.ToLogConfig()); err != nil {
		return fmt.Errorf("set up the log: %w", err)
	}
	if err := metricsutil.RegisterMetrics(); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	if err := disk.InitializeTempDir(); err != nil {
		return fmt.Errorf("set up the folder for spilled queries: %w", err)
	}
	defer disk.CleanUp()
	executor.Start()
	defer executor.Stop()
	resourcemanager.InstanceResourceManager.Start()
	defer resourcemanager.InstanceResourceManager.Stop()

	storage, dom, err := open(ctx, filepath.Join(dir, "kv"))
	if err != nil {
		return err
	}
	defer func() {
		dom.Close()
		ddl.CloseOwnerManager()
		if err := storage.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "tidb: close the storage:", err)
		}
	}()
	return serve(ctx, storage, dom)
}

// configure sets what TiDB reads from its configuration file.
func configure(dir string, port uint) {
	config.UpdateGlobal(func(c *config.Config) {
		c.Store = "unistore"
		c.Host, c.Port, c.Socket = "127.0.0.1", port, ""
		c.Status.ReportStatus = false
		c.Log.Level, c.Log.File.Filename = "error", filepath.Join(dir, "tidb.log")
		c.Instance.EnableSlowLog.Store(false)
		c.TempStoragePath = filepath.Join(dir, "tmp")
	})
	engine := &unistore.DefaultConf.Engine
	// A write is on the disk before it is acknowledged. The default is false.
	engine.SyncWrite = true
	// The defaults are those of a server: they cost a gigabyte of memory.
	engine.MaxMemTableSize = 16 << 20
	engine.NumMemTables = 2
	engine.NumCompactors = 1
	engine.VlogFileSize = 32 << 20
}

// settings are global variables, set at every start.
var settings = []string{
	// CHECK constraints are ignored otherwise.
	"tidb_enable_check_constraint = ON",
	// Migration tools ask for isolation levels and locks that TiDB refuses by name otherwise.
	"tidb_skip_isolation_level_check = ON",
	"tidb_enable_noop_functions = ON",
	"tidb_enable_auto_analyze = OFF",
	"tidb_enable_slow_log = OFF",
	"tidb_enable_telemetry = OFF",
	"tidb_server_memory_limit = '1GB'",
}

// keepCommits are the global variables that make commits durable and atomic on unistore, which keeps locks in memory
// only, and the values of uncommitted rows in them.
var keepCommits = []string{
	// It acknowledges a transaction of which only locks exist.
	"tidb_enable_async_commit = OFF",
	// It writes without locks that readers could see, and unistore has no other means to make them wait: a snapshot
	// could miss a transaction at first and show it later.
	"tidb_enable_1pc = OFF",
	// A transaction is acknowledged when its first batch is written; the others, of 16 KB by default, follow later from
	// the locks. With one batch a transaction (there is one region) it is written as a whole.
	"tidb_txn_commit_batch_size = 1073741824",
}

// open opens the storage and applies the settings.
func open(ctx context.Context, path string) (kv.Storage, *domain.Domain, error) {
	if err := kvstore.Register("unistore", mockstore.EmbedUnistoreDriver{}); err != nil {
		return nil, nil, fmt.Errorf("register the storage: %w", err)
	}
	storage, err := kvstore.New("unistore://" + path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the storage in %s: %w", path, err)
	}
	if err := ddl.StartOwnerManager(ctx, storage); err != nil {
		return nil, nil, fmt.Errorf("start the DDL owner: %w", err)
	}
	dom, err := session.BootstrapSession(storage)
	if err != nil {
		return nil, nil, fmt.Errorf("bootstrap: %w", err)
	}
	se, err := session.CreateSession(storage)
	if err != nil {
		return nil, nil, fmt.Errorf("open a session: %w", err)
	}
	defer se.Close()
	ctx = kv.WithInternalSourceType(ctx, kv.InternalTxnOthers)
	for _, setting := range append(settings, keepCommits...) {
		if _, err := se.ExecuteInternal(ctx, "SET GLOBAL "+setting); err != nil {
			return nil, nil, fmt.Errorf("set %s: %w", setting, err)
		}
	}
	return storage, dom, nil
}

// serve serves connections until ctx ends.
func serve(ctx context.Context, storage kv.Storage, dom *domain.Domain) error {
	cfg := config.GetGlobalConfig()
	srv, err := server.NewServer(cfg, server.NewTiDBDriver(storage))
	if err != nil {
		return fmt.Errorf("make the server: %w", err)
	}
	srv.SetDomain(dom)
	dom.InfoSyncer().SetSessionManager(srv)
	go dom.ServerMemoryLimitHandle().SetSessionManager(srv).Run() // It enforces tidb_server_memory_limit.

	failed := make(chan error, 1)
	go func() { failed <- srv.Run(dom) }()
	addr := net.JoinHostPort(cfg.Host, strconv.FormatUint(uint64(cfg.Port), 10))
	if err := awaitListener(ctx, addr, failed); err != nil {
		return err
	}
	fmt.Printf("TiDB serves on %s\n", addr)

	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", addr, err)
	case <-ctx.Done():
	}
	srv.Close()
	// The parent has stopped its clients by now; what still runs is not waited for.
	srv.DrainClients(time.Second, time.Second)
	return nil
}

// awaitListener returns once addr accepts connections.
func awaitListener(ctx context.Context, addr string, failed <-chan error) error {
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-failed:
			return fmt.Errorf("serve on %s: %w", addr, err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
