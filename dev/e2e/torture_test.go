package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"

	"chatapp.dev/dev/internal/torture"
)

// TestTortureNothingAcknowledgedIsLostDoubledOrOutOfOrderForAnybody lets people talk while every fault strikes at least
// once. The flag -torture says for how long.
func TestTortureNothingAcknowledgedIsLostDoubledOrOutOfOrderForAnybody(t *testing.T) {
	t.Parallel()
	programs, _ := world.open(t)
	result, err := torture.Run(t.Context(), torture.Options{
		Programs: programs, Dir: keptDir(t), For: *tortureFor, Users: 12, Rate: 40, Seed: rand.Uint64(), Out: testLog{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	result.Report(testLog{t})
	if len(result.Violations) > 0 {
		t.Errorf("%d violations", len(result.Violations))
	}
	for _, name := range torture.FaultNames() {
		if result.Struck[name] == 0 {
			t.Errorf("%s did not strike", name)
		}
	}
	if result.Messages == 0 || result.Deliveries < 2*result.Messages {
		t.Errorf("%d messages and %d deliveries are too few to mean anything", result.Messages, result.Deliveries)
	}
}

// testLog is the test's log as a writer of lines.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
