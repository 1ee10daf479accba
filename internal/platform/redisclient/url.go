package redisclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// The forms of a URL.
const (
	serverForm   = "redis://[user:password@]host:port/db"
	sentinelForm = "redis+sentinel://[user:password@]host:port[,host:port]/master[/db][?sentinel_user=USER&sentinel_password=PASSWORD]"
	clusterForm  = "redis+cluster://[user:password@]host:port[,host:port]"
)

// target is what a URL names: a cluster, a master that Sentinel watches, or else one server.
type target struct {
	cluster *redis.ClusterOptions
	// server is how to connect to the one server, or to the master but for its address.
	server *redis.Options
	// master is what Sentinel calls it, and sentinels is how to connect to each of them.
	master    string
	sentinels []*redis.Options
}

// CheckURL says what is wrong with a Redis URL, without repeating it: it may hold a password.
func CheckURL(url string) error {
	_, err := parse(url)
	return err
}

// parse reads a URL. Its errors name a rule and nothing of the URL.
func parse(s string) (target, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	switch scheme {
	case "redis+sentinel", "rediss+sentinel":
		t, err := parseSentinel(rest, scheme == "rediss+sentinel")
		if err != nil {
			return target{}, fmt.Errorf("must be %s, or rediss+sentinel:// for TLS, but %w", sentinelForm, err)
		}
		return t, nil
	case "redis+cluster", "rediss+cluster":
		t, err := parseCluster(rest, scheme == "rediss+cluster")
		if err != nil {
			return target{}, fmt.Errorf("must be %s, or rediss+cluster:// for TLS, but %w", clusterForm, err)
		}
		return t, nil
	default:
		options, err := redis.ParseURL(s)
		if err != nil || strings.Contains(options.Addr, ",") {
			return target{}, errors.New("must be " + serverForm + ", or rediss:// for TLS; " +
				"redis+sentinel:// and redis+cluster:// are for several servers")
		}
		return target{server: options}, nil
	}
}

// hosts is the part of a URL that Sentinel and Cluster have in common.
type hosts struct {
	user, password string
	addrs          []string
	path           string // Without the slash at its beginning.
	query          url.Values
}

// parseHosts reads what follows the scheme. Package url does not read several hosts.
func parseHosts(rest string) (hosts, error) {
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	at := strings.LastIndex(authority, "@")
	u, err := url.Parse("redis://" + authority[:at+1] + "host" + tail)
	if err != nil || u.Fragment != "" {
		return hosts{}, errors.New("it is no URL; special characters in a password are written as %40 and the like")
	}
	h := hosts{user: u.User.Username(), path: strings.TrimPrefix(u.Path, "/")}
	h.password, _ = u.User.Password()
	if h.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return hosts{}, errors.New("what follows the question mark can't be read")
	}
	for addr := range strings.SplitSeq(authority[at+1:], ",") {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" {
			return hosts{}, errors.New("a host or its port is missing")
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return hosts{}, errors.New("a port is not a number from 1 to 65535")
		}
		if _, err := url.Parse("redis://" + addr); err != nil {
			return hosts{}, errors.New("a host is neither a name nor an address")
		}
		h.addrs = append(h.addrs, net.JoinHostPort(host, port))
	}
	return h, nil
}

func parseSentinel(rest string, secure bool) (target, error) {
	h, err := parseHosts(rest)
	if err != nil {
		return target{}, err
	}
	master, number, hasNumber := strings.Cut(h.path, "/")
	if master == "" {
		return target{}, errors.New("the name of the master is missing")
	}
	db := 0
	if hasNumber {
		if db, err = strconv.Atoi(number); err != nil || db < 0 {
			return target{}, errors.New("what follows the master is not the number of a database")
		}
	}
	user, password := h.query.Get("sentinel_user"), h.query.Get("sentinel_password")
	if user != "" && password == "" {
		return target{}, errors.New("sentinel_user is given without sentinel_password")
	}
	h.query.Del("sentinel_user")
	h.query.Del("sentinel_password")
	if len(h.query) > 0 {
		return target{}, errors.New("a parameter is neither sentinel_user nor sentinel_password")
	}
	t := target{
		master: master,
		server: &redis.Options{
			// It stands where an address does in spans and metrics.
			Addr: master, Username: h.user, Password: h.password, DB: db, TLSConfig: tlsConfig(secure),
		},
	}
	for _, addr := range h.addrs {
		t.sentinels = append(t.sentinels, &redis.Options{
			Addr: addr, Username: user, Password: password, TLSConfig: tlsConfig(secure),
		})
	}
	return t, nil
}

func parseCluster(rest string, secure bool) (target, error) {
	h, err := parseHosts(rest)
	if err != nil {
		return target{}, err
	}
	if h.path != "" {
		return target{}, errors.New("a path follows the hosts: a cluster has no numbered databases")
	}
	if len(h.query) > 0 {
		return target{}, errors.New("a parameter follows the hosts")
	}
	return target{cluster: &redis.ClusterOptions{
		Addrs: h.addrs, Username: h.user, Password: h.password, TLSConfig: tlsConfig(secure),
	}}, nil
}

// tlsConfig returns nil for plain text. Each server's certificate must be for the name by which it is dialled.
func tlsConfig(secure bool) *tls.Config {
	if !secure {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12}
}
