package run

import "testing"

func TestAddrTakesHostAndPort(t *testing.T) {
	valid := []string{"127.0.0.1:8080", ":8080", "localhost:0", "0.0.0.0:65535", "[::1]:80", "[fe80::1%eth0]:80", "graph.chat.svc:443"}
	for _, text := range valid {
		var a Addr
		if err := a.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		} else if a.String() != text {
			t.Errorf("%q became %q", text, a)
		}
	}
	invalid := []string{
		"", "8080", "localhost", "localhost:", ":65536", ":-1", ":+1", ":http", ":8 0", "::1:80", "a b:80",
		"http://localhost:80", "tcp://10.0.0.1:80", "user@host:80", ":99999999999999999999",
	}
	for _, text := range invalid {
		a := Addr("untouched:1")
		if err := a.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
		if a != "untouched:1" {
			t.Errorf("%q was refused but stored", text)
		}
	}
}

func TestListenNamesAnAddressThatIsTaken(t *testing.T) {
	listener, err := Addr("127.0.0.1:0").Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := Addr(listener.Addr().String())
	if _, err := taken.Listen(); err == nil {
		t.Error("listened twice on one address")
	}
	if _, err := Addr("").Listen(); err == nil {
		t.Error("listened without an address")
	}
}
