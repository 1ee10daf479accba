package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"
)

// requestTimeout bounds a request: a system that hangs must not hang the benchmark.
const requestTimeout = 30 * time.Second

// wire is one HTTP connection that costs next to nothing, so that on a machine that both share the load takes as little
// as possible from what is measured. It knows just enough of HTTP/1.1.
type wire struct {
	conn   net.Conn
	reader *bufio.Reader
	head   []byte // Request line and headers, up to the length of the body.
	buffer []byte
	answer []byte
}

// dialWire opens a connection to a GraphQL endpoint for the holder of a token.
func dialWire(ctx context.Context, endpoint, token string) (*wire, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", endpoint, err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", target.Host)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", endpoint, err)
	}
	return &wire{
		conn:   conn,
		reader: bufio.NewReaderSize(conn, 32<<10),
		head: fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
			"Accept: application/graphql-response+json\r\nAuthorization: Bearer %s\r\nContent-Length: ", target.Path, target.Host, token),
	}, nil
}

func (w *wire) close() { _ = w.conn.Close() }

// post sends a body and returns that of the answer, which is good until the next call. Any status but 200 is an error.
func (w *wire) post(body []byte) ([]byte, error) {
	w.buffer = append(w.buffer[:0], w.head...)
	w.buffer = strconv.AppendInt(w.buffer, int64(len(body)), 10)
	w.buffer = append(w.buffer, "\r\n\r\n"...)
	w.buffer = append(w.buffer, body...)
	if err := w.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	if _, err := w.conn.Write(w.buffer); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	ok, err := w.read()
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("the answer is not 200: %.300s", w.answer)
	}
	return w.answer, nil
}

// read reads an answer and says whether its status is 200.
func (w *wire) read() (ok bool, err error) {
	status, err := w.line()
	if err != nil {
		return false, err
	}
	ok = bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	length, chunked := -1, false
	for {
		line, err := w.line()
		if err != nil {
			return false, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = parseInt(value, 10); err != nil {
				return false, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	w.answer = w.answer[:0]
	switch {
	case chunked:
		return ok, w.chunks()
	case length >= 0:
		return ok, w.take(length)
	default:
		return false, errors.New("an answer without a length")
	}
}

// chunks reads a chunked body into answer.
func (w *wire) chunks() error {
	for {
		line, err := w.line()
		if err != nil {
			return err
		}
		size, err := parseInt(line, 16)
		if err != nil {
			return err
		}
		if err := w.take(size); err != nil {
			return err
		}
		// The end of the chunk, or of the trailer, which is always empty here.
		if _, err := w.line(); err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
	}
}

// take appends so many bytes to answer.
func (w *wire) take(n int) error {
	start := len(w.answer)
	w.answer = append(w.answer, make([]byte, n)...)
	_, err := io.ReadFull(w.reader, w.answer[start:])
	return err
}

// line reads a line, without its end. It is good until the next read.
func (w *wire) line() ([]byte, error) {
	line, err := w.reader.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func parseInt(text []byte, base int) (int, error) {
	n, err := strconv.ParseInt(string(text), base, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no length", text)
	}
	return int(n), nil
}
