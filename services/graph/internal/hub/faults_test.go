//go:build faults

package hub

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// faultsFile is what CHATAPP_FAULTS_FILE names. Package fault looks at the variable once, at the first fault point.
var faultsFile string

func init() {
	dir, err := os.MkdirTemp("", "hub-faults")
	if err != nil {
		panic(err)
	}
	faultsFile = filepath.Join(dir, "faults")
	if err := os.Setenv("CHATAPP_FAULTS_FILE", faultsFile); err != nil {
		panic(err)
	}
}

// strike lets faults happen until the test's end.
func strike(t *testing.T, faults string) {
	t.Helper()
	if err := os.WriteFile(faultsFile+".new", []byte(faults), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(faultsFile+".new", faultsFile); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(faultsFile); err != nil {
			t.Error(err)
		}
	})
}

func TestSwallowedLastHintIsMadeUpFor(t *testing.T) {
	strike(t, faultHint+"=drop:1")
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		sent := time.Now()
		w.hint(w.messages.commit(id.UserID, "swallowed"))
		w.wantNext(s, 1)
		if took := time.Since(sent); took == 0 || took > 5*time.Second {
			t.Errorf("it took %v of virtual time", took)
		}
		w.hint(w.messages.commit(id.UserID, "not swallowed"))
		w.wantNext(s, 2)
	})
}

// Each of these breaks one protection and asserts that its absence shows, by the check that the chaotic tests use.

func TestWithoutComparingHeadsASwallowedHintShows(t *testing.T) {
	strike(t, faultHint+"=drop:1,"+faultHeadCheck+"=drop")
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.hint(w.messages.commit(id.UserID, "swallowed"))
		w.wantNothing(s)
		if checkHistory(w.messages, id.UserID, 0, 0, nil, true) == nil {
			t.Error("the check passed")
		}
	})
}

func TestWithoutTheGapCheckASwallowedHintShows(t *testing.T) {
	strike(t, faultHint+"=drop:1,"+faultGapCheck+"=drop")
	cfg := config()
	cfg.HeadInterval = 3 * time.Second
	inBubble(t, cfg, func(t *testing.T, w *world) {
		id := w.user()
		s := w.subscribe(id, "")
		w.hint(w.messages.commit(id.UserID, "swallowed"))
		w.hint(w.messages.commit(id.UserID, "seen"))
		got := w.take(s, 1)
		if err := checkHistory(w.messages, id.UserID, 0, 0, got, false); err == nil {
			t.Error("the check passed")
		}
		w.wantNothing(s)
	})
}

func TestLiveBeforeTheReplayShows(t *testing.T) {
	strike(t, faultReplay+"=drop")
	inBubble(t, config(), func(t *testing.T, w *world) {
		id := w.user()
		w.commit(id.UserID, 10)
		s := w.subscribe(id, w.messages.cursorAt(id.UserID, 4))
		w.hint(w.messages.commit(id.UserID, "live"))
		got := w.take(s, 1)
		if err := checkHistory(w.messages, id.UserID, 4, 4, got, false); err == nil {
			t.Error("the check passed")
		}
		w.wantNothing(s)
	})
}

// Chaos finds them, too, without being told where to look, sooner or later. Heads are needed only where the last hint
// of all was lost, and so the runs that look for that are short and many.
func TestChaosFindsEachBrokenProtection(t *testing.T) {
	for _, c := range []struct {
		broken string
		events int
		seeds  uint64
	}{{faultGapCheck, 150, 100}, {faultHeadCheck, 10, 2000}, {faultReplay, 150, 100}} {
		t.Run(c.broken, func(t *testing.T) {
			strike(t, c.broken+"=drop")
			noticed := false
			for seed := uint64(0); seed < c.seeds && !noticed; seed++ {
				inBubble(t, chaoticConfig(), func(t *testing.T, w *world) {
					if err := newChaos(w, seed, 3, c.events, 4*time.Millisecond, w.hint).run(2); err != nil {
						t.Log(err)
						noticed = true
					}
				})
			}
			if !noticed {
				t.Error("nobody noticed")
			}
		})
	}
}
