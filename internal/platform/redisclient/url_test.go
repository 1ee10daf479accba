package redisclient

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

// summary is what a test compares of a target.
type summary struct {
	Kind           string
	Addrs          []string
	User, Password string
	DB             int
	TLS            bool
	Master         string
	SentinelUser   string
	SentinelPass   string
}

func summarise(t target) summary {
	switch {
	case t.cluster != nil:
		o := t.cluster
		return summary{Kind: "cluster", Addrs: o.Addrs, User: o.Username, Password: o.Password, TLS: o.TLSConfig != nil}
	case t.master != "":
		o := t.server
		s := summary{
			Kind: "sentinel", User: o.Username, Password: o.Password, DB: o.DB, TLS: o.TLSConfig != nil, Master: t.master,
			SentinelUser: t.sentinels[0].Username, SentinelPass: t.sentinels[0].Password,
		}
		for _, sentinel := range t.sentinels {
			s.Addrs = append(s.Addrs, sentinel.Addr)
			s.TLS = s.TLS && sentinel.TLSConfig != nil
		}
		return s
	default:
		o := t.server
		return summary{
			Kind: "server", Addrs: []string{o.Addr}, User: o.Username, Password: o.Password, DB: o.DB, TLS: o.TLSConfig != nil,
		}
	}
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]summary{
		"redis://h:1/2":                {Kind: "server", Addrs: []string{"h:1"}, DB: 2},
		"rediss://u:p%40@h:1":          {Kind: "server", Addrs: []string{"h:1"}, User: "u", Password: "p@", TLS: true},
		"redis://h":                    {Kind: "server", Addrs: []string{"h:6379"}},
		"redis+cluster://a:1":          {Kind: "cluster", Addrs: []string{"a:1"}},
		"redis+cluster://a:1,[::1]:2/": {Kind: "cluster", Addrs: []string{"a:1", "[::1]:2"}},
		"rediss+cluster://u:p@a:1,b:2": {
			Kind: "cluster", Addrs: []string{"a:1", "b:2"}, User: "u", Password: "p", TLS: true,
		},
		"redis+sentinel://a:1,b:2,c:3/m": {Kind: "sentinel", Addrs: []string{"a:1", "b:2", "c:3"}, Master: "m"},
		"rediss+sentinel://:p%2Cq@a:1/m/3?sentinel_user=su&sentinel_password=s%26p": {
			Kind: "sentinel", Addrs: []string{"a:1"}, Password: "p,q", DB: 3, TLS: true, Master: "m",
			SentinelUser: "su", SentinelPass: "s&p",
		},
	} {
		got, err := parse(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if diff := cmp.Diff(want, summarise(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
}

func TestAWrongURLIsRefusedWithItsRuleAndWithoutRepeatingIt(t *testing.T) {
	const either = "redis+sentinel:// and redis+cluster:// are for several servers"
	for url, rule := range map[string]string{
		"":                                                 either,
		"127.0.0.1:6379":                                   either,
		"http://:secret@redis:6379":                        either,
		"redis://:secret@redis:6379/x":                     either,
		"redis+proxy://:secret@redis:6379":                 either,
		"redis://:secret@a:1,b:2":                          either,
		"redis+cluster://":                                 "a host or its port is missing",
		"redis+cluster://secret":                           "a host or its port is missing",
		"redis+cluster://:secret@a:1,":                     "a host or its port is missing",
		"redis+cluster://:secret@a:0":                      "a port is not a number from 1 to 65535",
		"redis+cluster://:secret@a:1,b:secret":             "a port is not a number from 1 to 65535",
		"redis+cluster://:secret@a b:1":                    "a host is neither a name nor an address",
		"redis+cluster://:secr%et@a:1":                     "it is no URL",
		"redis+cluster://:secret@a:1/0":                    "a cluster has no numbered databases",
		"redis+cluster://:secret@a:1?x=1":                  "a parameter follows the hosts",
		"redis+cluster://:secret@a:1#secret":               "it is no URL",
		"rediss+cluster://:secret@a":                       "or rediss+cluster:// for TLS, but a host or its port is missing",
		"redis+sentinel://:secret@a:1":                     "the name of the master is missing",
		"redis+sentinel://:secret@a:1/":                    "the name of the master is missing",
		"redis+sentinel://:secret@/m":                      "a host or its port is missing",
		"redis+sentinel://a:1/m/secret":                    "what follows the master is not the number of a database",
		"redis+sentinel://a:1/m/-1":                        "what follows the master is not the number of a database",
		"redis+sentinel://a:1/m/0/0":                       "what follows the master is not the number of a database",
		"redis+sentinel://a:1/m?pass=secret":               "a parameter is neither sentinel_user nor sentinel_password",
		"redis+sentinel://a:1/m?sentinel_user=secret":      "sentinel_user is given without sentinel_password",
		"redis+sentinel://a:1/m?sentinel_password=%secret": "what follows the question mark can't be read",
	} {
		for _, err := range []error{CheckURL(url), func() error { _, err := Connect(url); return err }()} {
			switch {
			case err == nil:
				t.Errorf("%q is taken", url)
			case !strings.HasPrefix(err.Error(), "must be redis") || !strings.Contains(err.Error(), rule):
				t.Errorf("%q is refused with %q, without %q", url, err, rule)
			case strings.Contains(err.Error(), "secret"):
				t.Errorf("%q is repeated: %v", url, err)
			}
		}
	}
}

// What is taken can be connected to, as far as that shows without a server, and what is refused can't.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{
		"redis://:p@h:1/2", "rediss://h", "unix:///redis.sock", "redis+cluster://u:p@a:1,[::1]:2", "rediss+cluster://a:1/0",
		"redis+sentinel://:p%40@a:1,b:2/m/3?sentinel_user=u&sentinel_password=p", "redis+sentinel://a:1/m?x=1#y",
		"redis+sentinel://", "redis+cluster://,", "+cluster://0:1", "redis+cluster://@a:65536", "://", "redis+sentinel://a:1/%2f",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, url string) {
		refused := CheckURL(url)
		client, err := Connect(url)
		if (refused == nil) != (err == nil) {
			t.Fatalf("CheckURL: %v, but Connect: %v", refused, err)
		}
		if err != nil {
			return
		}
		defer client.Close()
		_, cluster := client.(*redis.ClusterClient)
		if want := strings.HasPrefix(url, "redis+cluster:") || strings.HasPrefix(url, "rediss+cluster:"); cluster != want {
			t.Errorf("a client of a cluster: %v, want %v", cluster, want)
		}
	})
}
