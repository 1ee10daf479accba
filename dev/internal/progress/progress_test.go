package progress

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a writer that tells when a text was written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		got := l.text.String()
		l.mu.Unlock()
		if strings.Contains(got, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q is not shown; shown: %q", text, got)
		}
	}
}

func TestProgressInLines(t *testing.T) {
	var out lines
	p := start(&out, false, time.Millisecond)
	p.Say("Begin.")
	p.Set("compiling")
	out.await(t, "Begin.\n  compiling (0s)\n")
	p.Set("linking")
	out.await(t, "  linking (0s)\n")
	p.Finish("Done")
	p.Close()
	if got := out.text.String(); !strings.HasSuffix(got, "Done (0s).\n") {
		t.Errorf("ends with %q", got[max(0, len(got)-40):])
	}
}

func TestProgressOnATerminal(t *testing.T) {
	var out lines
	p := start(&out, true, time.Millisecond)
	p.Set("compiling")
	out.await(t, "  compiling (0s)")
	p.Finish("Done")
	p.Close()
	got := out.text.String()
	if !strings.Contains(got, "\r") || strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\rDone (0s).\n") {
		t.Errorf("shown: %q, want one line that changes, cleared before the last", got)
	}
}
