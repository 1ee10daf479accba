package edge

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"
)

func TestParseCPU(t *testing.T) {
	stat := []byte("24620 (a) (cat) R 24615 24615 20198 0 -1 4194304 98 0 0 0 250 175 0 0 20 0 1 0 1138040 3133440 414\n")
	if got, err := parseCPU(stat); err != nil || got != 4250*time.Millisecond {
		t.Errorf("425 ticks are %v, %v", got, err)
	}
	for _, wrong := range []string{"", "1 (cat) R 1 2", "24620 (cat) R 1 1 1 0 -1 4194304 98 0 0 0 x 175 0"} {
		if got, err := parseCPU([]byte(wrong)); err == nil {
			t.Errorf("%q is %v", wrong, got)
		}
	}
}

func TestParsePSS(t *testing.T) {
	rollup := []byte("5600-7fff ---p 00000000 00:00 0 [rollup]\nRss:  1760 kB\nPss:   361 kB\nPss_Dirty:  112 kB\n")
	if got, err := parsePSS(rollup); err != nil || got != 361<<10 {
		t.Errorf("361 kB are %d bytes, %v", got, err)
	}
	if got, err := parsePSS([]byte("Rss: 1760 kB\n")); err == nil {
		t.Errorf("without a Pss there are %d bytes", got)
	}
}

func TestParseEstablished(t *testing.T) {
	table := []byte(`  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 637 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 638 1 0 20 4 30 10 -1
   2: 0100007F:1F90 0100007F:C351 04 00000000:00000000 00:00000000 00000000     0        0 639 1 0 20 4 30 10 -1
   3: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 640 1 0 20 4 30 10 -1
   4: 0100007F:1F91 0100007F:C352 01 00000000:00000000 00:00000000 00000000     0        0 641 1 0 20 4 30 10 -1
   5: 0100007F:1F90 0100007F:C353 01 00000000:00000000 00:00000000 00000000     0        0 642 1 0 20 4 30 10 -1
`)
	got := slices.Sorted(maps.Keys(parseEstablished(table, 8080)))
	if want := []uint16{50000, 50003}; !slices.Equal(got, want) {
		t.Errorf("the clients have ports %v, want %v", got, want)
	}
}

func TestThisProcessIsMeasured(t *testing.T) {
	if bytes, err := memoryOf(os.Getpid()); err != nil || bytes < 1<<20 {
		t.Errorf("this process has %d bytes, %v", bytes, err)
	}
	before, err := ownCPU()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; {
		now, err := ownCPU()
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a loop takes no time")
		}
	}
}
