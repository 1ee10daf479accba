// Package api holds the contracts between ChatApp's components: the protocol buffers under gen, and here the names of
// the Redis channels. It imports nothing but gRPC and protocol buffers.
package api

// UserChannel names the Redis channel that carries the hints for one user's log; userID is the UUID's canonical text.
// Each user has a channel of their own, and the braces make the id the hash tag, so that Redis Cluster spreads users
// over its shards.
func UserChannel(userID string) string {
	return "chatapp:user:{" + userID + "}"
}

// RevocationChannel is the Redis channel on which the service users tells that sessions were revoked. Whoever refuses
// their tokens subscribes to it. It is published to with plain PUBLISH, in a cluster too, where that reaches the
// subscribers of every node: sign-outs are rare, and each process has to know of all of them.
const RevocationChannel = "chatapp:revocations"
