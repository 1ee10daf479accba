// Command chatapp is what developers of ChatApp use: it tortures and measures a whole system on one machine.
package main

import "chatapp.dev/internal/platform/run"

// cli are the commands, each in a file of its own.
type cli struct {
	Torture  tortureCommand  `cmd:"" help:"Talk while services, Redis and MySQL die, and check that nothing acknowledged is lost, doubled or out of order."`
	WithTiDB withTiDBCommand `cmd:"" name:"with-tidb" help:"Run a command, such as go test, whose tests take their databases from a throw-away TiDB."`
}

func main() { run.Main("chatapp", "ChatApp for its developers.", &cli{}) }
