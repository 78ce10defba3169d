package main

import (
	"errors"
	"log/slog"
	"strconv"

	"github.com/entrepot/entrepot/cache/disk"
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
	bytes, bytesFree, bytesErr := disk.Space(folder)
	inodes, inodesFree, inodesErr := disk.Inodes(folder)
	m.diskBytes, m.diskInodes = bytes, inodes
	if err := errors.Join(err, bytesErr, inodesErr); err != nil {
		log.Warn("not all limits of this machine could be read", "error", err)
	}
	log.Info("the limits of this machine",
		"cpus", m.CPUs, "files", orNone(m.Files, decimal), "pids", orNone(m.PIDs, decimal), "memory", orNone(m.Memory, size),
		"disk", orNone(bytes, size), "disk_free", size(bytesFree), "inodes", orNone(inodes, decimal), "inodes_free", decimal(inodesFree))
	return m
}

// openFileShare returns a quarter of the files that this process may have open.
// Clients' connections, blobs being sent, and downloads get a quarter each. The
// last quarter is for everything else, such as connections to upstreams, the
// records and the log. So none of them can use up the others' files.
func (m machine) openFileShare() int {
	const least, most = 64, 1 << 20
	return int(max(least, min(m.Files, most)/4))
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
