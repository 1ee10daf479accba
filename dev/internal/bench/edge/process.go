package edge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// dumpTime bounds the writing of what all goroutines do, of which there are tens of thousands.
const dumpTime = 5 * time.Minute

// userHertz is the unit of the times in /proc: a hundredth of a second on every machine that Go runs on.
const userHertz = 100

// cpuOf returns how long a process has been executed, for itself and by the kernel for it.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the time of a process: %w", err)
	}
	return parseCPU(stat)
}

func parseCPU(stat []byte) (time.Duration, error) {
	// The second field is the program's name, which may hold anything, in parentheses.
	const state, user, system = 2, 13, 14
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= system-state {
		return 0, fmt.Errorf("read the time of a process: %q", stat)
	}
	var ticks int64
	for _, field := range [][]byte{fields[user-state], fields[system-state]} {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the time of a process: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHertz, nil
}

// ownCPU is cpuOf of this process.
func ownCPU() (time.Duration, error) { return cpuOf(os.Getpid()) }

// memoryOf returns how many bytes of memory a process takes: its proportional set, in which what it shares with others
// counts in parts.
func memoryOf(pid int) (int64, error) {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	return parsePSS(rollup)
}

func parsePSS(rollup []byte) (int64, error) {
	for line := range bytes.Lines(rollup) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == "Pss:" && string(fields[2]) == "kB" {
			n, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("read the memory of a process: no Pss")
}

// redisMemory returns how many bytes Redis has allocated.
func redisMemory(ctx context.Context, rdb *redis.Client) (int64, error) {
	info, err := rdb.Info(ctx, "memory").Result()
	if err != nil {
		return 0, fmt.Errorf("ask Redis for its memory: %w", err)
	}
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, "used_memory:"); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("ask Redis for its memory: no used_memory")
}

// established returns the ports of the clients whose connections a server has not closed. It is the kernel's view of
// the server's side: that of a client that does not read can be years behind.
func established(server string) (map[uint16]bool, error) {
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	return parseEstablished(table, uint16(n)), nil
}

func parseEstablished(table []byte, server uint16) map[uint16]bool {
	const local, remote, state = 1, 2, 3
	ports := make(map[uint16]bool)
	for line := range bytes.Lines(table) {
		fields := bytes.Fields(line)
		if len(fields) > state && string(fields[state]) == "01" && portIn(fields[local]) == server {
			ports[portIn(fields[remote])] = true
		}
	}
	return ports
}

// portIn returns the port of an address such as 0100007F:1F90, or 0.
func portIn(address []byte) uint16 {
	_, port, _ := bytes.Cut(address, []byte(":"))
	var b [2]byte
	if len(port) != hex.EncodedLen(len(b)) {
		return 0
	}
	if _, err := hex.Decode(b[:], port); err != nil {
		return 0
	}
	return uint16(b[0])<<8 | uint16(b[1])
}

// countGoroutines ends a Go program by the signal at which its runtime writes what every goroutine does, and counts them.
// Nothing has to be built into the program for it.
func countGoroutines(pid int, ended <-chan struct{}, logFile string) (int, error) {
	log, err := os.Open(logFile)
	if err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	defer log.Close()
	if _, err := log.Seek(0, 2); err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	select {
	case <-ended:
	case <-time.After(dumpTime):
		return 0, errors.New("count goroutines: the program does not end")
	}
	n := 0
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "goroutine ") && strings.HasSuffix(line, "]:") {
			n++
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	if n == 0 {
		return 0, errors.New("count goroutines: the program wrote none")
	}
	return n, nil
}
