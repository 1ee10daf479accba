package harness

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// Tap stands between one service and MySQL, and records each command that the service sends: one command is one round
// trip, however many statements it holds.
type Tap struct {
	proxy
	server string

	mu       sync.Mutex
	commands []Command
}

// Command is a command of MySQL's protocol.
type Command struct {
	// Code is the protocol's number of the command, such as ComQuery.
	Code byte
	// Text is the rest: the SQL of a query.
	Text string
}

// Commands of the protocol.
const (
	ComQuit = 0x01
	// ComQuery executes one text of SQL.
	ComQuery = 0x03
	// ComPing asks whether the connection works.
	ComPing = 0x0e
	// ComPrepare and ComExecute are the two halves of a prepared statement.
	ComPrepare = 0x16
	ComExecute = 0x17
)

func startTap(port int) (*Tap, error) {
	t := &Tap{server: fmt.Sprintf("127.0.0.1:%d", port)}
	return t, t.listen(t.serve)
}

func (t *Tap) port() int { return t.listener.Addr().(*net.TCPAddr).Port }

// Commands returns the commands since the last call of Reset. Those that only end a connection are left out.
func (t *Tap) Commands() []Command {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Command(nil), t.commands...)
}

// Reset forgets the commands so far.
func (t *Tap) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.commands = nil
}

func (t *Tap) serve(client net.Conn) {
	server, err := net.Dial("tcp", t.server)
	if err != nil {
		_ = client.Close()
		return
	}
	t.track(server)
	// What the service sends is forwarded through the pipe as well as read by record.
	read, write := io.Pipe()
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		t.record(read)
		_, _ = io.Copy(io.Discard, read)
	}()
	pipe(tee{Conn: client, copy: write}, server)
	_ = write.Close()
	<-recorded
}

// tee copies what is read from a connection.
type tee struct {
	net.Conn

	copy *io.PipeWriter
}

func (t tee) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	_, _ = t.copy.Write(p[:n])
	return n, err
}

// record reads packets: three bytes of length, one of number, and the content. A command is a packet with number 0; the
// handshake's have higher ones.
func (t *Tap) record(from io.Reader) {
	r := bufio.NewReader(from)
	var header [4]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return
		}
		length := binary.LittleEndian.Uint32([]byte{header[0], header[1], header[2], 0})
		content := make([]byte, length)
		if _, err := io.ReadFull(r, content); err != nil {
			return
		}
		if header[3] != 0 || len(content) == 0 || content[0] == ComQuit {
			continue
		}
		t.mu.Lock()
		t.commands = append(t.commands, Command{Code: content[0], Text: string(content[1:])})
		t.mu.Unlock()
	}
}

// Selects returns the SQL of those commands that read rows.
func Selects(commands []Command) []string {
	var selects []string
	for _, c := range commands {
		text := strings.TrimLeft(c.Text, " \n\t(")
		if (c.Code == ComQuery || c.Code == ComExecute) && len(text) >= 6 && strings.EqualFold(text[:6], "SELECT") {
			selects = append(selects, c.Text)
		}
	}
	return selects
}
