package edge

import (
	"strings"
	"testing"
)

func TestReportIsATableOfMedians(t *testing.T) {
	r := newReport(Default(5, 1))
	stock := r.of("stock gqlgen")
	stock.Idle = &Idle{KiB: 75, KiBInRedis: 11, CPU: 7.5, Goroutines: 6}
	stock.Saturation = []Saturation{{PerCPUSecond: 20_900, P99: 214}}
	stock.Stalled = []Stalled{{Stalled: 100, Within: 10, Watched: 30, Ratio: 1.26}}
	r.of("bare gorilla, joined").Saturation = []Saturation{{PerCPUSecond: 202_000, P99: 40}}
	own := r.of(nameOfOurs)
	own.Idle = &Idle{KiB: 15.9, KiBInRedis: 0.2, CPU: 0.5, Goroutines: 2.01}
	own.Saturation = []Saturation{{PerCPUSecond: 1, P99: 99}, {PerCPUSecond: 120_000, P99: 45}, {PerCPUSecond: 130_000, P99: 1}}
	own.Stalled = []Stalled{{Stalled: 100, Evicted: 100, Within: 10, Last: 8.25, Watched: 30, Ratio: 1.2}}
	var out strings.Builder
	r.Write(&out)
	for _, want := range []string{
		"| | stock gqlgen | bare gorilla, joined | ours | goal | |",
		"| 75.0 and 11.0 in Redis | - | 15.9 and 0.2 in Redis | ≤ 16, Redis included | MISSED |",
		"| 7.5 % and 0.0 % in Redis | - | 0.5 % and 0.0 % in Redis | < 1 % | met |",
		"| 6.00 | - | 2.01 | ≤ 2 | met |",
		"| 20900 | 202000 | 120000 | ≥ 100000 | met |",
		"| 214 ms | 40 ms | 45 ms | ≤ 45 ms | met |",
		"| 0 % in 10 s | - | 100 % in 10 s, all in 8.2 s | 100 % in 10 s | met |",
		"| 1.26 | - | 1.20 | ≤ 1.1 | MISSED |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}
