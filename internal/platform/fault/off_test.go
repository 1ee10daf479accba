//go:build !faults

package fault

import "testing"

func TestANormalBuildIgnoresItsEnvironment(t *testing.T) {
	t.Setenv("CHATAPP_FAULTS", "place=kill,place=drop")
	t.Setenv("CHATAPP_FAULTS_FILE", "/nowhere")
	Point("place")
	if Dropped("place") {
		t.Error("a normal build dropped something")
	}
}
