// Package clientaddr finds out which address a request came from when there are proxies in between.
//
// X-Forwarded-For is written by whoever sends a request and added to by each proxy on its way, so only its right end can
// be believed, and that only as far as trusted proxies wrote it. It is guaranteed that nothing a client writes into the
// header changes the address that is found for it, as long as no client sits in a trusted network. Without trusted
// proxies the address is that of the connection.
package clientaddr

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

const forwardedFor = "X-Forwarded-For"

// Proxies are the networks of the proxies that are trusted.
type Proxies []netip.Prefix

// ParseProxies reads networks, such as 10.0.0.0/8, and single addresses. Its error reads on from the name of what holds
// them.
func ParseProxies(networks []string) (Proxies, error) {
	proxies := make(Proxies, 0, len(networks))
	for _, text := range networks {
		network, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
			network, err = addr.Prefix(addr.BitLen())
		}
		switch {
		case err != nil || network.Addr().Is4In6():
			return nil, fmt.Errorf("must be networks such as 10.0.0.0/8 or fd00::/8, or addresses, but has %q", text)
		case network != network.Masked():
			return nil, fmt.Errorf("must be networks, but %q is an address in one: is it %s?", text, network.Masked())
		case network.Bits() == 0:
			return nil, fmt.Errorf("must not be the whole Internet, but has %q: every client could give any address", text)
		}
		proxies = append(proxies, network)
	}
	return proxies, nil
}

func (p Proxies) trust(addr netip.Addr) bool {
	for _, network := range p {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// Of returns the address that a request came from: the rightmost that is no trusted proxy's or, if all are, the leftmost.
// It is the zero Addr when the connection has none. Disbelieved tells that the request says it was forwarded, by somebody
// who is not trusted.
func (p Proxies) Of(r *http.Request) (addr netip.Addr, disbelieved bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	hops := r.Header[forwardedFor]
	addr = plain(peer.Addr())
	if !p.trust(addr) {
		return addr, len(hops) > 0
	}
	for i := len(hops) - 1; i >= 0; i-- {
		for rest := hops[i]; rest != ""; {
			hop := rest[strings.LastIndexByte(rest, ',')+1:]
			rest = strings.TrimSuffix(rest[:len(rest)-len(hop)], ",")
			if hop = strings.Trim(hop, " \t"); hop == "" {
				continue
			}
			next, ok := parse(hop)
			if !ok {
				// What is left of it cannot be believed more than what nobody can read.
				return addr, false
			}
			if addr = next; !p.trust(addr) {
				return addr, false
			}
		}
	}
	return addr, false
}

// parse reads an address as proxies write them: some add the port.
func parse(hop string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(hop); err == nil {
		return plain(addr), true
	}
	if inner, ok := strings.CutPrefix(hop, "["); ok && strings.HasSuffix(inner, "]") {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return plain(addr), err == nil && addr.Is6()
	}
	addr, err := netip.ParseAddrPort(hop)
	return plain(addr.Addr()), err == nil
}

// plain gives an address one form: no IPv4 in the disguise of IPv6, and no zone, which only its own machine understands.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }
