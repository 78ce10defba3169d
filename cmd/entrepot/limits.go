package main

import (
	"errors"
	"log/slog"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/limits"
	"github.com/entrepot/entrepot/proxy/admin"
)

// machine is what the program may use, as it was seen at the start. Zero means
// that there is no limit, or that it is not known.
type machine struct {
	limits.Limits
	diskBytes, diskInodes int64 // the size of the file system that the cache is on
}

// readMachine reads the limits, for a cache in a folder that need not exist
// yet, and logs them in one line: most reports of a mirror that stopped begin
// with a limit that nobody knew of.
func readMachine(folder string, log *slog.Logger) machine {
	of, err := limits.Read()
	m := machine{Limits: of}
	folder = nearestExisting(folder)
	space, spaceErr := disk.Space(folder)
	m.diskBytes, m.diskInodes = space.Bytes, space.Inodes
	if err := errors.Join(err, spaceErr); err != nil {
		log.Warn("not all limits of this machine could be read", "error", err)
	}
	log.Info("the limits of this machine",
		"cpus", m.CPUs, "files", orNone(m.Files, decimal), "pids", orNone(m.PIDs, decimal), "memory", orNone(m.Memory, size),
		"disk", orNone(space.Bytes, size), "disk_free", size(space.FreeBytes), "inodes", orNone(space.Inodes, decimal), "inodes_free", decimal(space.FreeInodes))
	return m
}

// configOptions are those of a command that runs with the user's configuration.
func configOptions(flags *pflag.FlagSet) config.Options {
	of, _ := limits.Read() // serve logs what could not be read
	return config.Options{Environment: true, Flags: flags, Memory: of.Memory}
}

// clientPlaces is how many connections and blobs being sent there may be at
// once. Downloads, connections to upstreams, the records and the log have at
// least a quarter of the files. What a connection takes of memory is bounded
// too: a quarter of it is theirs.
func (m machine) clientPlaces() int {
	const least, most, memoryOfEach = 64, 1 << 20, 32 << 10
	n := most
	if m.Files > 0 {
		n = int(min(most, m.Files-m.Files/4))
	}
	if m.Memory > 0 {
		n = int(min(int64(n), m.Memory/4/memoryOfEach))
	}
	return max(least, n)
}

// largeHeaders is how many connections may send a large header at once. In the
// worst case net/http makes 27 MiB of each.
func (m machine) largeHeaders() int {
	const most, memoryOfEach = 16, 27 << 20
	if m.Memory == 0 {
		return most
	}
	return int(max(1, min(most, m.Memory/4/memoryOfEach)))
}

// maxFlights is how many downloads may run or wait at once: each has a file or
// two. Only an attack needs more than a thousand.
func (m machine) maxFlights() int {
	const least, most = 64, 1024
	if m.Files == 0 {
		return most
	}
	return int(max(least, min(most, m.Files/4)))
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// orNone returns a limit as the log shows it.
func orNone(limit int64, text func(int64) string) string {
	if limit == 0 {
		return "unlimited"
	}
	return text(limit)
}

func (m machine) metrics() admin.Limits {
	return admin.Limits{Files: m.Files, PIDs: m.PIDs, Memory: m.Memory, Disk: m.diskBytes, Inodes: m.diskInodes}
}
