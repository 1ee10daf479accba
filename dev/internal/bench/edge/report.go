package edge

import (
	"fmt"
	"io"
	"strings"
)

// What is aimed at, on a machine with two processors.
const (
	wantKiB          = 16.0
	wantIdleCPU      = 1.0
	wantGoroutines   = 2.0
	wantPerCPUSecond = 100_000.0
	wantP99          = 45.0
	wantEvicted      = 100.0
	wantRatio        = 1.1
)

// Report has what was measured of each server.
type Report struct {
	IdleClients int        `json:"idleClients"`
	Subscribers int        `json:"subscribers"`
	Window      int        `json:"eventsUnderWay"`
	Stalled     int        `json:"stalledClients"`
	Pace        int        `json:"eventsPerSecondWithStalledClients"`
	Servers     []*Figures `json:"servers"`
}

// Figures are those of one server. What has rounds is in their order.
type Figures struct {
	Name       string       `json:"name"`
	Idle       *Idle        `json:"idle,omitempty"`
	Saturation []Saturation `json:"saturation"`
	Stalled    []Stalled    `json:"stalled,omitempty"`
}

// Idle is what a client takes that is subscribed and to whom nothing happens.
type Idle struct {
	KiB        float64 `json:"kib"`
	KiBInRedis float64 `json:"kibInRedis"`
	// CPU is that of all clients, in percent of a core.
	CPU        float64 `json:"cpuPercent"`
	CPUOfRedis float64 `json:"cpuPercentOfRedis"`
	Goroutines float64 `json:"goroutines"`
	// PayloadBytes is how long an event of this server is. They should be of about the same length.
	PayloadBytes int `json:"payloadBytes"`
}

// Saturation is a round in which there was always something to deliver.
type Saturation struct {
	// PerCPUSecond are deliveries in a second of the server's processor time, PerSecond in one of the clock.
	PerCPUSecond float64 `json:"deliveriesPerCPUSecond"`
	PerSecond    float64 `json:"deliveriesPerSecond"`
	P50          float64 `json:"p50Milliseconds"`
	P99          float64 `json:"p99Milliseconds"`
	// ClientsCPU is what the clients took, in percent of a core.
	ClientsCPU float64 `json:"clientsCPUPercent"`
}

// Stalled is a round in which some clients did not read, and as long in which there were only the others.
type Stalled struct {
	Stalled int `json:"stalled"`
	// Evicted is how many of them were closed by the server Within so many seconds. Last is after how many the last one
	// was, or 0 if it was not within the seconds that were Watched.
	Evicted int     `json:"evicted"`
	Within  float64 `json:"withinSeconds"`
	Last    float64 `json:"lastAfterSeconds,omitempty"`
	Watched float64 `json:"watchedSeconds"`
	// P99With and P99Without are how long deliveries to the others took, with the stalled ones there and without.
	P99With    float64 `json:"p99MillisecondsWith"`
	P99Without float64 `json:"p99MillisecondsWithout"`
	Ratio      float64 `json:"ratio"`
}

func newReport(s Sizes) *Report {
	return &Report{IdleClients: s.Idle, Subscribers: s.Subscribers, Window: s.Window, Stalled: s.Stalled, Pace: s.Pace}
}

// of returns the figures of a server.
func (r *Report) of(name string) *Figures {
	for _, f := range r.Servers {
		if f.Name == name {
			return f
		}
	}
	f := &Figures{Name: name}
	r.Servers = append(r.Servers, f)
	return f
}

func (s Stalled) percent() float64 { return 100 * float64(s.Evicted) / float64(s.Stalled) }

// evicted says in words what became of the clients that did not read.
func (s Stalled) evicted() string {
	switch {
	case s.Last > 0:
		return fmt.Sprintf("%.0f %% evicted within %.0f s, the last after %.1f s", s.percent(), s.Within, s.Last)
	default:
		return fmt.Sprintf("%.0f %% evicted within %.0f s, not all within %.0f s", s.percent(), s.Within, s.Watched)
	}
}

// medianOf returns the median of one figure of all rounds.
func medianOf[T any](rounds []T, figure func(T) float64) float64 {
	values := make([]float64, len(rounds))
	for i, round := range rounds {
		values[i] = figure(round)
	}
	return median(values)
}

// row is a line of the table: what is measured, of each server that has it, and what is aimed at for ours.
type row struct {
	title string
	value func(*Figures) (text string, figure float64, ok bool)
	goal  string
	met   func(figure float64) bool
}

func atMost(want float64) func(float64) bool { return func(have float64) bool { return have <= want } }

func atLeast(want float64) func(float64) bool { return func(have float64) bool { return have >= want } }

func (r *Report) rows() []row {
	idle := func(show func(*Idle) (string, float64)) func(*Figures) (string, float64, bool) {
		return func(f *Figures) (string, float64, bool) {
			if f.Idle == nil {
				return "", 0, false
			}
			text, figure := show(f.Idle)
			return text, figure, true
		}
	}
	saturated := func(format string, figure func(Saturation) float64) func(*Figures) (string, float64, bool) {
		return func(f *Figures) (string, float64, bool) {
			middle := medianOf(f.Saturation, figure)
			return fmt.Sprintf(format, middle), middle, len(f.Saturation) > 0
		}
	}
	stalled := func(format string, figure func(Stalled) float64) func(*Figures) (string, float64, bool) {
		return func(f *Figures) (string, float64, bool) {
			middle := medianOf(f.Stalled, figure)
			return fmt.Sprintf(format, middle), middle, len(f.Stalled) > 0
		}
	}
	return []row{
		{
			fmt.Sprintf("KiB a connected, subscribed, idle client, of %d users", r.IdleClients),
			idle(func(i *Idle) (string, float64) {
				return fmt.Sprintf("%.1f and %.1f in Redis", i.KiB, i.KiBInRedis), i.KiB + i.KiBInRedis
			}),
			fmt.Sprintf("≤ %.0f, Redis included", wantKiB), atMost(wantKiB),
		},
		{
			fmt.Sprintf("idle CPU at %d connections, of a core", r.IdleClients),
			idle(func(i *Idle) (string, float64) {
				return fmt.Sprintf("%.1f %% and %.1f %% in Redis", i.CPU, i.CPUOfRedis), i.CPU
			}),
			fmt.Sprintf("< %.0f %%", wantIdleCPU), func(have float64) bool { return have < wantIdleCPU },
		},
		{
			"goroutines a connection",
			idle(func(i *Idle) (string, float64) { return fmt.Sprintf("%.2f", i.Goroutines), i.Goroutines }),
			// Those that a server has anyway are counted with the connections'.
			fmt.Sprintf("≤ %.0f", wantGoroutines), atMost(wantGoroutines + 0.05),
		},
		{
			fmt.Sprintf("deliveries a server CPU second, %d subscribers of one user", r.Subscribers),
			saturated("%.0f", func(s Saturation) float64 { return s.PerCPUSecond }),
			fmt.Sprintf("≥ %.0f", wantPerCPUSecond), atLeast(wantPerCPUSecond),
		},
		{
			fmt.Sprintf("p99 at saturation, %d events under way", r.Window),
			saturated("%.0f ms", func(s Saturation) float64 { return s.P99 }),
			fmt.Sprintf("≤ %.0f ms", wantP99), atMost(wantP99),
		},
		{
			"deliveries a second, of the clock",
			saturated("%.0f", func(s Saturation) float64 { return s.PerSecond }), "", nil,
		},
		{
			fmt.Sprintf("%d of %d readers stalled: evicted", r.Stalled, r.Subscribers),
			func(f *Figures) (string, float64, bool) {
				if len(f.Stalled) == 0 {
					return "", 0, false
				}
				share := medianOf(f.Stalled, Stalled.percent)
				text := fmt.Sprintf("%.0f %% in %.0f s", share, f.Stalled[0].Within)
				if last := f.Stalled[0].Last; last > 0 {
					text += fmt.Sprintf(", all in %.1f s", last)
				}
				return text, share, true
			},
			fmt.Sprintf("%.0f %% in 10 s", wantEvicted), atLeast(wantEvicted),
		},
		{
			fmt.Sprintf("healthy p99 with them / without, at %d events a second", r.Pace),
			func(f *Figures) (string, float64, bool) {
				ratio := medianOf(f.Stalled, func(s Stalled) float64 { return s.Ratio })
				return fmt.Sprintf("%.2f", ratio), ratio, len(f.Stalled) > 0
			},
			fmt.Sprintf("≤ %.1f", wantRatio), atMost(wantRatio),
		},
		{
			"healthy p99 without them",
			stalled("%.1f ms", func(s Stalled) float64 { return s.P99Without }), "", nil,
		},
	}
}

// Write writes the medians as a table in Markdown.
func (r *Report) Write(w io.Writer) {
	var head, rule strings.Builder
	for _, f := range r.Servers {
		head.WriteString(" " + f.Name + " |")
		rule.WriteString("---|")
	}
	fmt.Fprintf(w, "| |%s goal | |\n|---|%s---|---|\n", head.String(), rule.String())
	for _, row := range r.rows() {
		line, verdict := "", ""
		for _, f := range r.Servers {
			text, figure, ok := row.value(f)
			if !ok {
				text = "-"
			} else if f.Name == nameOfOurs && row.met != nil {
				verdict = "MISSED"
				if row.met(figure) {
					verdict = "met"
				}
			}
			line += " " + text + " |"
		}
		fmt.Fprintf(w, "| %s |%s %s | %s |\n", row.title, line, row.goal, verdict)
	}
}
