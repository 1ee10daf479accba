// Package progress shows people what a long work is doing and for how long. The work is not slowed by who reads it.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// How often progress is shown: on a terminal in one line that changes, elsewhere in a line each time.
const (
	terminalInterval = 200 * time.Millisecond
	lineInterval     = 5 * time.Second
)

// Display shows the progress of one work. Its methods may be called from several goroutines.
type Display struct {
	w        io.Writer
	terminal bool
	begun    time.Time
	stop     chan struct{}
	stopped  sync.WaitGroup

	mu    sync.Mutex
	doing string
	shown string // What stands in the terminal's current line.
}

// New begins to show the progress of a work, until Close.
func New(w io.Writer) *Display {
	return start(w, isTerminal(w), lineInterval)
}

func start(w io.Writer, terminal bool, interval time.Duration) *Display {
	d := &Display{w: w, terminal: terminal, begun: time.Now(), stop: make(chan struct{})}
	if terminal {
		interval = terminalInterval
	}
	d.stopped.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-d.stop:
				return
			case <-tick.C:
				d.show()
			}
		}
	})
	return d
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Set says what is being done now; nothing is shown of "".
func (d *Display) Set(doing string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.doing = doing
}

// Say writes a line at once.
func (d *Display) Say(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
	fmt.Fprintln(d.w, line)
}

// Finish writes a last line, with the time that it all took.
func (d *Display) Finish(line string) {
	d.Set("")
	d.Say(fmt.Sprintf("%s (%s).", line, d.elapsed()))
}

// Close ends the showing.
func (d *Display) Close() {
	close(d.stop)
	d.stopped.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
}

func (d *Display) show() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doing == "" {
		return
	}
	text := fmt.Sprintf("  %s (%s)", d.doing, d.elapsed())
	if !d.terminal {
		fmt.Fprintln(d.w, text)
		return
	}
	d.clear()
	fmt.Fprint(d.w, text)
	d.shown = text
}

// clear empties the terminal's current line. The caller holds mu.
func (d *Display) clear() {
	if d.shown != "" {
		fmt.Fprint(d.w, "\r"+strings.Repeat(" ", len(d.shown))+"\r")
		d.shown = ""
	}
}

func (d *Display) elapsed() time.Duration { return time.Since(d.begun).Round(time.Second) }
