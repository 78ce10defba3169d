// Package limits says what the process may use: the limits that it runs under,
// and not what it uses now. It changes nothing.
//
// What is sized by a constant breaks in a container that is smaller than the
// constant. Whoever needs places asks here (TestPIDsAreTheLeastOfTheCgroupAndItsParents).
package limits

import (
	"errors"
	"math"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Limits are those of this process. Zero means that there is no limit, or that
// it is not known.
type Limits struct {
	Files  int64 // that may be open at once
	PIDs   int64 // kernel threads, of this process and of those that share the limit
	Memory int64 // in bytes, of this process and of those that share the limit
	CPUs   int   // never zero
}

// Read returns the limits. The error says which could not be read; the others
// are there nevertheless.
func Read() (Limits, error) {
	pids, pidsErr := pidLimit()
	memory, memoryErr := memoryLimit()
	return Limits{Files: openFiles(), PIDs: pids, Memory: memory, CPUs: runtime.GOMAXPROCS(0)}, errors.Join(pidsErr, memoryErr)
}

// memoryLimit is the least of the limits of the cgroup (v1 or v2) and of those
// above it, of what the machine has, and of GOMEMLIMIT.
func memoryLimit() (int64, error) {
	least := int64(math.MaxInt64)
	if os.Getenv("GOMEMLIMIT") != "" { // or else the limit is one that this process has set itself
		least = debug.SetMemoryLimit(-1) // reads it
	}
	var failed error
	for _, source := range []memlimit.Provider{memlimit.FromCgroup, memlimit.FromSystem} {
		limit, err := source()
		switch {
		case err == nil && limit > 0:
			least = min(least, int64(min(limit, math.MaxInt64)))
		case err == nil, errors.Is(err, memlimit.ErrNoLimit), errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
		default:
			failed = errors.Join(failed, err)
		}
	}
	if least == math.MaxInt64 {
		return 0, failed
	}
	return least, failed
}

// least is the smaller of two limits of which either may be zero.
func least(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
