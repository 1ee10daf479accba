// Package rpc is how ChatApp's services call each other over gRPC.
//
// A Server lets a call through to its handler only with a valid access token (but for methods that are named public),
// a request that keeps its protovalidate rules, and a deadline. A connection from Dial passes the caller's token on,
// gives every call a deadline, spreads calls over every address that a name resolves to, and repeats only calls of the
// methods that it is told may be repeated.
//
// Errors of package errs arrive as they were sent, but for their cause, which stays in the log of the server. Any other
// error of a handler reaches the client as errs.Internal without its text, and a transport that fails as
// errs.Unavailable: then the call may or may not have been carried out.
package rpc

import (
	"time"

	"google.golang.org/grpc/resolver/dns"
)

const (
	// maxMessageSize bounds what either side reads of one message.
	maxMessageSize = 16 << 20

	// A client pings a silent connection this often, so that one whose other end vanished is given up before a person
	// notices; the server allows twice that.
	pingInterval    = 20 * time.Second
	pingTimeout     = 10 * time.Second
	minPingInterval = pingInterval / 2
)

func init() {
	// A name is looked up again when a connection ends. In a rolling update the pods behind it can all be new within the
	// half minute that gRPC would wait by default.
	dns.SetMinResolutionInterval(5 * time.Second)
}
