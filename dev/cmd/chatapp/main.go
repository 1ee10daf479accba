// Command chatapp is what developers of ChatApp use: it runs, fills, tortures and measures a whole system on one machine.
package main

import (
	"github.com/alecthomas/kong"

	"chatapp.dev/internal/platform/run"
)

// cli are the commands, each in a file of its own.
type cli struct {
	Run      runCommand      `cmd:"" help:"Run everything in this process until Ctrl-C, with the data in a folder."`
	Seed     seedCommand     `cmd:"" help:"Make people, conversations and messages in bulk in a ChatApp that runs in development. Prints a line of JSON a person, with id, username and accessToken."`
	Listen   listenCommand   `cmd:"" help:"Print a line of JSON for each message that somebody sends or gets, as it arrives."`
	Torture  tortureCommand  `cmd:"" help:"Talk while services, Redis and MySQL die, and check that nothing acknowledged is lost, doubled or out of order."`
	Bench    benchCommand    `cmd:"" help:"Measure sending, history and delivery, held against the same SQL without any service, and subscriptions, held against other servers."`
	WithTiDB withTiDBCommand `cmd:"" name:"with-tidb" help:"Run a command, such as go test, whose tests take their databases from a throw-away TiDB."`
}

func main() {
	run.Main("chatapp", "ChatApp for its developers.", &cli{}, kong.Vars{"log_format": "text"})
}
