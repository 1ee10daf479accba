package run

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// leastTotal is what a process may take, garbage included, before it is collected. What our services keep is often a
	// few megabytes: at Go's own GOGC of 100 they would collect many times a second, which took about a quarter of the CPU
	// of a service under load.
	leastTotal = 32 << 20
	// leastPercent is how much garbage there may be at least in relation to what is kept. A process that keeps a lot,
	// such as one with thousands of connections, shall not have as much again in garbage.
	leastPercent = 25
	// mostPercent bounds GOGC, from which Go derives the least size of the heap as well.
	mostPercent = 400
)

// tuneCollector chooses GOGC anew after each collection, unless the environment sets it. GOMEMLIMIT bounds the memory,
// and makes the collector work harder near the bound, as ever.
func tuneCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(mostPercent)
	afterCollection(&cycle{percent: mostPercent})
}

// cycle is garbage from the start, so that each collection finds it.
type cycle struct{ percent int }

func afterCollection(c *cycle) {
	runtime.SetFinalizer(c, func(c *cycle) {
		if percent := percentFor(kept()); percent != c.percent {
			c.percent = percent
			debug.SetGCPercent(percent)
		}
		afterCollection(c)
	})
}

// percentFor returns GOGC for a process that keeps so many bytes, in steps, since to change it stops the world.
func percentFor(kept uint64) int {
	const step = 25
	if kept >= leastTotal {
		return leastPercent
	}
	percent := (leastTotal - kept) * 100 / max(kept, 1)
	return int(min(max(percent/step*step, leastPercent), mostPercent))
}

// kept returns the bytes that the last collection has found to be in use, as GOGC counts them.
func kept() uint64 {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
	}
	metrics.Read(samples)
	var sum uint64
	for _, sample := range samples {
		sum += sample.Value.Uint64()
	}
	return sum
}
