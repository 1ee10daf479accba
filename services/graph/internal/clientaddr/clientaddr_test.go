package clientaddr

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func proxies(t testing.TB, networks ...string) Proxies {
	t.Helper()
	parsed, err := ParseProxies(networks)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func request(remote string, forwarded ...string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Header: http.Header{}}
	for _, value := range forwarded {
		r.Header.Add("X-Forwarded-For", value)
	}
	return r
}

func TestTheAddressOfARequest(t *testing.T) {
	trusted := proxies(t, "10.0.0.0/8", "fd00::/8", "192.0.2.1")
	for name, test := range map[string]struct {
		request     *http.Request
		want        string
		disbelieved bool
	}{
		"no proxy":                    {request("203.0.113.7:1234"), "203.0.113.7", false},
		"no proxy, a forged header":   {request("203.0.113.7:1234", "198.51.100.1"), "203.0.113.7", true},
		"a proxy":                     {request("10.1.2.3:80", "203.0.113.7"), "203.0.113.7", false},
		"a proxy by address":          {request("192.0.2.1:80", "203.0.113.7"), "203.0.113.7", false},
		"its neighbour":               {request("192.0.2.2:80", "203.0.113.7"), "192.0.2.2", true},
		"a proxy that says nothing":   {request("10.1.2.3:80"), "10.1.2.3", false},
		"an empty header":             {request("10.1.2.3:80", ""), "10.1.2.3", false},
		"a forged address before":     {request("10.1.2.3:80", "198.51.100.1, 203.0.113.7"), "203.0.113.7", false},
		"a forged proxy before":       {request("10.1.2.3:80", "10.9.9.9, 203.0.113.7"), "203.0.113.7", false},
		"two proxies":                 {request("10.1.2.3:80", "203.0.113.7, 10.4.5.6"), "203.0.113.7", false},
		"two headers":                 {request("10.1.2.3:80", "198.51.100.1, 203.0.113.7", "10.4.5.6"), "203.0.113.7", false},
		"nothing but proxies":         {request("10.1.2.3:80", "10.7.7.7, 10.4.5.6"), "10.7.7.7", false},
		"garbage before":              {request("10.1.2.3:80", "x;y, 203.0.113.7"), "203.0.113.7", false},
		"garbage":                     {request("10.1.2.3:80", "203.0.113.7, unknown"), "10.1.2.3", false},
		"garbage after a proxy":       {request("10.1.2.3:80", "203.0.113.7, unknown, 10.4.5.6"), "10.4.5.6", false},
		"no spaces, empty parts":      {request("10.1.2.3:80", "203.0.113.7,10.4.5.6,,"), "203.0.113.7", false},
		"tabs":                        {request("10.1.2.3:80", "\t203.0.113.7\t"), "203.0.113.7", false},
		"a port":                      {request("10.1.2.3:80", "203.0.113.7:5555"), "203.0.113.7", false},
		"IPv6":                        {request("[fd00::1]:80", "2001:db8::7"), "2001:db8::7", false},
		"IPv6 in brackets":            {request("[fd00::1]:80", "[2001:db8::7]"), "2001:db8::7", false},
		"IPv6 with a port":            {request("[fd00::1]:80", "[2001:db8::7]:5555"), "2001:db8::7", false},
		"IPv4 in brackets":            {request("10.1.2.3:80", "[203.0.113.7]"), "10.1.2.3", false},
		"IPv4 as IPv6":                {request("[::ffff:10.1.2.3]:80", "::ffff:203.0.113.7"), "203.0.113.7", false},
		"a zone":                      {request("[fe80::1%eth0]:80"), "fe80::1", false},
		"a socket without an address": {request("@", "203.0.113.7"), "invalid IP", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, disbelieved := trusted.Of(test.request)
			if got.String() != test.want || disbelieved != test.disbelieved {
				t.Errorf("%v, %v, want %v, %v", got, disbelieved, test.want, test.disbelieved)
			}
		})
	}
	if got, disbelieved := Proxies(nil).Of(request("10.1.2.3:80", "203.0.113.7")); got.String() != "10.1.2.3" || !disbelieved {
		t.Errorf("without trusted proxies: %v, %v", got, disbelieved)
	}
}

func TestNetworksThatAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "proxy", "10.0.0.0", "10.0.0.0/8", "fd00::/8", "::1", "10.0.0.0/33", "10.0.0.1/8", "0.0.0.0/0", "::/0",
		"::ffff:10.0.0.0/104", "fe80::1%eth0", "10.0.0.0/8,10.0.0.0/8",
	} {
		_, err := ParseProxies([]string{text})
		fine := text == "10.0.0.0" || text == "10.0.0.0/8" || text == "fd00::/8" || text == "::1"
		if (err == nil) != fine {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzOf holds that what stands left of an address that nobody trusts changes nothing, whatever it is: a client writes it.
func FuzzOf(f *testing.F) {
	trusted := proxies(f, "10.0.0.0/8", "fd00::/8")
	for _, seed := range []struct{ remote, byProxies, byClient string }{
		{"10.0.0.1:80", "203.0.113.7", "198.51.100.1"},
		{"10.0.0.1:80", "203.0.113.7, 10.0.0.2", "10.0.0.3"},
		{"203.0.113.7:80", "", "10.0.0.1"},
		{"[fd00::1]:80", "[2001:db8::1]:9", "\x00, ,[,]:"},
		{"10.0.0.1:80", "unknown,10.0.0.2", "::ffff:10.0.0.1%a"},
	} {
		f.Add(seed.remote, seed.byProxies, seed.byClient)
	}
	f.Fuzz(func(t *testing.T, remote, byProxies, byClient string) {
		got, _ := trusted.Of(request(remote, byProxies))
		peer, err := netip.ParseAddrPort(remote)
		if (err == nil) != got.IsValid() {
			t.Fatalf("from %q: %v", remote, got)
		}
		if err != nil {
			return
		}
		if addr := plain(peer.Addr()); got != addr && !trusted.trust(addr) {
			t.Fatalf("from %q, who is not trusted, %q was believed: %v", remote, byProxies, got)
		}
		if got.Is4In6() || got.Zone() != "" {
			t.Fatalf("%v has another form", got)
		}
		if trusted.trust(got) {
			// No client of ours: everything was written by proxies, or by what is no address.
			return
		}
		for _, forged := range []*http.Request{
			request(remote, strings.Join([]string{byClient, byProxies}, ",")),
			request(remote, byClient, byProxies),
		} {
			if moved, _ := trusted.Of(forged); moved != got {
				t.Fatalf("%q before %q made %v of %v", byClient, byProxies, moved, got)
			}
		}
	})
}
