//go:build !linux

package edge

import (
	"errors"
	"time"
)

var errNeedsLinux = errors.New("the edge is measured on Linux only, whose epoll and /proc it takes")

// poller cannot be had here.
type poller struct{}

func newPoller() (*poller, error)                           { return nil, errNeedsLinux }
func (*poller) add(int, int) error                          { return errNeedsLinux }
func (*poller) wait([]int, time.Duration) ([]int, error)    { return nil, errNeedsLinux }
func (*poller) close()                                      {}
func dialSocket(string, time.Duration) (int, uint16, error) { return 0, 0, errNeedsLinux }
func raiseFiles(int) error                                  { return errNeedsLinux }
