package engine

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

// progress shows people what a long work is doing and for how long. The work is not slowed by who reads it.
type progress struct {
	w        io.Writer
	terminal bool
	begun    time.Time
	stop     chan struct{}
	stopped  sync.WaitGroup

	mu    sync.Mutex
	doing string
	shown string // What stands in the terminal's current line.
}

func newProgress(w io.Writer) *progress {
	return startProgress(w, isTerminal(w), lineInterval)
}

func startProgress(w io.Writer, terminal bool, interval time.Duration) *progress {
	p := &progress{w: w, terminal: terminal, begun: time.Now(), stop: make(chan struct{})}
	if terminal {
		interval = terminalInterval
	}
	p.stopped.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
				p.show()
			}
		}
	})
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// set says what is being done now; nothing is shown of "".
func (p *progress) set(doing string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing = doing
}

// say writes a line at once.
func (p *progress) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.w, line)
}

// finish writes a last line, with the time that it all took.
func (p *progress) finish(line string) {
	p.set("")
	p.say(fmt.Sprintf("%s (%s).", line, p.elapsed()))
}

// close ends the showing.
func (p *progress) close() {
	close(p.stop)
	p.stopped.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doing == "" {
		return
	}
	text := fmt.Sprintf("  %s (%s)", p.doing, p.elapsed())
	if !p.terminal {
		fmt.Fprintln(p.w, text)
		return
	}
	p.clear()
	fmt.Fprint(p.w, text)
	p.shown = text
}

// clear empties the terminal's current line. The caller holds mu.
func (p *progress) clear() {
	if p.shown != "" {
		fmt.Fprint(p.w, "\r"+strings.Repeat(" ", len(p.shown))+"\r")
		p.shown = ""
	}
}

func (p *progress) elapsed() time.Duration { return time.Since(p.begun).Round(time.Second) }
