package transport

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

var (
	errRatio   = errors.New("compressed too much")
	errNotGzip = errors.New("not gzip")
)

// freeBytes may be decompressed from however little: a short text that says one word again and again is no attack.
const freeBytes = 64 << 10

// inflater decompresses gzip until more comes of it than is reasonable.
type inflater struct {
	compressed counter
	maxRatio   int64

	gzip     *gzip.Reader // Nil until the first read.
	inflated int64
}

// Read implements io.Reader.
func (i *inflater) Read(p []byte) (int, error) {
	if i.gzip == nil {
		reader, err := gzip.NewReader(&i.compressed)
		if err != nil {
			return 0, i.explain(err)
		}
		i.gzip = reader
	}
	n, err := i.gzip.Read(p)
	i.inflated += int64(n)
	if i.inflated > freeBytes && i.inflated > i.maxRatio*i.compressed.read {
		return 0, errRatio
	}
	return n, i.explain(err)
}

// explain tells what the data is to blame for from what is the connection's fault.
func (i *inflater) explain(err error) error {
	switch {
	case err == nil, i.gzip != nil && errors.Is(err, io.EOF):
		return err
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, new(flate.CorruptInputError)),
		i.compressed.ended:
		return fmt.Errorf("%w: %w", errNotGzip, err)
	default:
		return err
	}
}

// Close implements io.Closer.
func (i *inflater) Close() error { return nil }

// counter counts what is read.
type counter struct {
	from  io.Reader
	read  int64
	ended bool
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.read += int64(n)
	c.ended = c.ended || errors.Is(err, io.EOF)
	return n, err
}
