package run

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Addr is a TCP address to listen on, "host:port": an empty host means every interface and port 0 a free port.
type Addr string

// UnmarshalText sets the address from text, or says what is wrong with it.
func (a *Addr) UnmarshalText(text []byte) error {
	s := string(text)
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("must be host:port, such as 127.0.0.1:8080 or :8080, but is %q", s)
	}
	if strings.ContainsAny(host, " \t/@") {
		return fmt.Errorf("must be host:port, such as 127.0.0.1:8080 or :8080, but %q is no host", host)
	}
	// Names of ports ("http") are refused: what they mean depends on the machine.
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 || strings.TrimLeft(port, "0123456789") != "" {
		return fmt.Errorf("must end in a port from 0 to 65535, but is %q", s)
	}
	*a = Addr(s)
	return nil
}

// String returns the address as "host:port".
func (a Addr) String() string { return string(a) }

// Listen opens the address. Its error names the address, and says so when somebody else has it.
func (a Addr) Listen() (net.Listener, error) {
	if a == "" {
		return nil, errors.New("listen: no address is set")
	}
	return net.Listen("tcp", string(a))
}

// Open returns the listener that was given, as tests and programs of several services do, or else opens the address.
func (a Addr) Open(given net.Listener) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	return a.Listen()
}
