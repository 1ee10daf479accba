package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"

	"chatapp.dev/dev/internal/allinone"
	"chatapp.dev/dev/internal/engine"
	"chatapp.dev/internal/platform/filelock"
	"chatapp.dev/internal/platform/run"
)

// runCommand is chatapp run.
type runCommand struct {
	run.Logging `set:"log_level=warn"`

	Listen   run.Addr    `default:"127.0.0.1:8080" help:"Address (host:port) of the API and the playground; :8080 for every interface. Port 0 takes a free one."`
	Data     string      `default:".chatapp" placeholder:"DIR" help:"Folder that keeps what people write. It is made when absent."`
	Engine   engine.Kind `enum:"auto, mariadb, tidb, dsn" default:"auto" help:"Database to use (${enum}): a private MariaDB or TiDB, or the running server that --mysql-dsn names. auto is the latter if it is given, else what has data in the folder, else MariaDB if it is installed, else TiDB, which takes minutes to build, once."`
	MySQLDSN string      `name:"mysql-dsn" placeholder:"DSN" help:"MySQL, MariaDB or TiDB server to use, such as root:secret@tcp(127.0.0.1:3306)/. The databases chatapp_users and chatapp_messages are made on it."`
	Redis    run.Addr    `placeholder:"HOST:PORT" help:"Redis to use, instead of one in this process."`
	Demo     bool        `help:"Make two people who have talked, once, and print examples to paste."`
}

// Validate names the first setting that is wrong.
func (r *runCommand) Validate() error {
	if r.Data == "" {
		return run.Invalid(&r.Data, "must be a folder, but is empty")
	}
	if r.MySQLDSN != "" {
		if _, err := mysql.ParseDSN(r.MySQLDSN); err != nil {
			// The error could show the password.
			return run.Invalid(&r.MySQLDSN, "must be user:password@tcp(host:port)/, such as root:secret@tcp(127.0.0.1:3306)/")
		}
	}
	switch {
	case r.Engine == engine.DSN && r.MySQLDSN == "":
		return run.Invalid(&r.Engine, "is dsn, which needs --mysql-dsn")
	case r.MySQLDSN != "" && r.Engine != engine.DSN && r.Engine != engine.Auto:
		return run.Invalid(&r.Engine, "must be auto or dsn with --mysql-dsn, but is %s", r.Engine)
	}
	return nil
}

// Run runs everything until ctx ends or a part fails.
func (r *runCommand) Run(ctx context.Context, log *slog.Logger) error {
	return r.run(ctx, os.Stdout, os.Stderr, log)
}

func (r *runCommand) run(ctx context.Context, out, progress io.Writer, log *slog.Logger) (err error) {
	dir, err := openDataDir(r.Data)
	if errors.Is(err, filelock.ErrHeld) {
		return r.folderTaken()
	}
	if err != nil {
		return run.Invalid(&r.Data, "is %s, which cannot be used: %v", r.Data, err)
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	listener, err := r.Listen.Listen()
	if err != nil {
		return r.cannotListen(err)
	}
	fmt.Fprintln(out, "ChatApp starts; Ctrl-C stops it.")
	s, err := allinone.Start(ctx, allinone.Options{
		Dir: dir.path, Engine: r.Engine, DSN: r.MySQLDSN, Redis: r.Redis.String(), Listener: listener, Progress: progress, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(out, "\nChatApp stops.")
		err = errors.Join(err, s.Stop())
		if err == nil {
			fmt.Fprintln(out, "ChatApp has stopped. What people wrote is there at the next start.")
		}
	}()
	here := system{
		PID: os.Getpid(), URL: webURL(s.GraphAddr()), Graph: s.GraphAddr(), Users: s.UsersAddr(), Messages: s.MessagesAddr(),
	}
	if err := dir.announce(here); err != nil {
		return err
	}
	fmt.Fprintf(out, welcome, s.Database(), s.Redis(), here.URL, here.URL, strings.TrimPrefix(here.URL, "http"), dir.path)
	if r.Demo {
		d, err := makeDemo(ctx, here.URL)
		if err != nil {
			return fmt.Errorf("make the demo: %w", err)
		}
		d.print(out)
	}
	select {
	case <-ctx.Done():
	case <-s.Failed(): // Stop says why.
	}
	return nil
}

// welcome tells people where to look.
const welcome = `  database    %s
  Redis       %s

ChatApp serves.

  playground  %s/
  GraphQL     %s/graphql
  WebSocket   ws%s/graphql
  data        %s
`

// folderTaken says who has the data folder.
func (r *runCommand) folderTaken() error {
	who := "another ChatApp starts or stops at the moment"
	if s, err := readSystem(r.Data); err == nil {
		who = fmt.Sprintf("a ChatApp runs already: %s/, process %d", s.URL, s.PID)
	}
	return run.Invalid(&r.Data, "is %s, where %s. To run one more, give it another folder and port: %s",
		r.Data, who, r.flags("--data="+r.Data+"-2", "--listen="+nextPort(r.Listen)))
}

// cannotListen says why the address cannot be used.
func (r *runCommand) cannotListen(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return run.Invalid(&r.Listen, "is %s, where another program listens. Choose another port: %s",
			r.Listen, r.flags("--listen="+nextPort(r.Listen)))
	}
	return run.Invalid(&r.Listen, "is %s, which cannot be listened on: %v", r.Listen, err)
}

// flags writes flags for whoever uses make and for whoever does not.
func (*runCommand) flags(flags ...string) string {
	list := strings.Join(flags, " ")
	return fmt.Sprintf("chatapp run %s, or make run ARGS='%s'", list, list)
}

// nextPort returns the address with the port that follows, or one that is free.
func nextPort(addr run.Addr) string {
	host, port, _ := net.SplitHostPort(addr.String())
	n, err := strconv.Atoi(port)
	if err != nil || n == 0 || n == 65535 {
		return net.JoinHostPort(host, "0")
	}
	return net.JoinHostPort(host, strconv.Itoa(n+1))
}

// webURL is how a browser on this machine reaches an address.
func webURL(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "http://" + addr
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.Equal(net.IPv4(127, 0, 0, 1))) {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
