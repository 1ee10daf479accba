package run

import "testing"

func TestGarbageIsBoundedByWhatIsKept(t *testing.T) {
	for _, test := range []struct {
		kept uint64
		want int
	}{
		{0, 400},
		{6 << 20, 400},
		{8 << 20, 300},
		{16 << 20, 100},
		{20 << 20, 50},
		{30 << 20, 25},
		{32 << 20, 25},
		{1 << 30, 25},
	} {
		if got := percentFor(test.kept); got != test.want {
			t.Errorf("percentFor(%d) = %d, want %d", test.kept, got, test.want)
		}
	}
	if kept() == 0 {
		t.Error("Go no longer tells what is kept")
	}
}
