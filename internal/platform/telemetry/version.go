package telemetry

import (
	"runtime/debug"
	"sync"
)

// linkedVersion is set by release builds: go build -ldflags "-X chatapp.dev/internal/platform/telemetry.linkedVersion=v1.2.3".
var linkedVersion string

// Version returns the version of this build: the one that it was linked with, else the one that Go derives from the
// commit it was built at, else "devel".
var Version = sync.OnceValue(func() string {
	if linkedVersion != "" {
		return linkedVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
})
