package limits

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// pidLimit is the least of the pids limit of the cgroup (v1 or v2), of those
// above it, and of the user's limit of processes.
func pidLimit() (int64, error) {
	limit := userProcesses()
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return limit, nil //nolint:nilerr // without a /proc there is nothing to read
	}
	cgroup, err := cgroupPIDs(proc)
	return least(limit, cgroup), err
}

// userProcesses is RLIMIT_NPROC, which the kernel does not apply to root.
func userProcesses() int64 {
	var limit unix.Rlimit
	if os.Geteuid() == 0 || unix.Getrlimit(unix.RLIMIT_NPROC, &limit) != nil || limit.Cur > math.MaxInt64 {
		return 0
	}
	return int64(limit.Cur)
}

func cgroupPIDs(proc procfs.FS) (int64, error) {
	self, err := proc.Self()
	if err != nil {
		return 0, fmt.Errorf("limit of pids: %w", err)
	}
	groups, err := self.Cgroups()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // a kernel without cgroups
	}
	if err != nil {
		return 0, fmt.Errorf("limit of pids: %w", err)
	}
	mounts, err := proc.GetMounts()
	if err != nil {
		return 0, fmt.Errorf("limit of pids: %w", err)
	}
	// Where both versions are mounted, v1 has the controller if it names it.
	for _, version := range []struct {
		file string
		has  func(procfs.Cgroup) bool
	}{
		{"cgroup", func(g procfs.Cgroup) bool { return slices.Contains(g.Controllers, "pids") }},
		{"cgroup2", func(g procfs.Cgroup) bool { return g.HierarchyID == 0 && len(g.Controllers) == 0 }},
	} {
		i := slices.IndexFunc(groups, version.has)
		if i < 0 {
			continue
		}
		for _, m := range mounts {
			if _, hasPIDs := m.SuperOptions["pids"]; m.FSType == version.file && (hasPIDs || version.file == "cgroup2") {
				return leastAbove(m, groups[i].Path)
			}
		}
	}
	return 0, nil
}

// leastAbove reads pids.max of a group and of all above it, as far as they are
// mounted.
func leastAbove(m *procfs.MountInfo, group string) (limit int64, _ error) {
	folder := m.MountPoint
	// Without a namespace of its own a container sees the names of the host,
	// and its own group at the mount point.
	if below, err := filepath.Rel(m.Root, group); err == nil && filepath.IsLocal(below) {
		folder = filepath.Join(m.MountPoint, below)
	}
	for {
		n, err := readLimit(filepath.Join(folder, "pids.max"))
		if err != nil {
			return limit, fmt.Errorf("limit of pids: %w", err)
		}
		limit = least(limit, n)
		if len(folder) <= len(m.MountPoint) {
			return limit, nil
		}
		folder = filepath.Dir(folder)
	}
}

// readLimit reads a number, or max, which is no limit. The root has no such
// file, and neither has a group whose parent has the controller switched off.
func readLimit(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	value := strings.TrimSpace(string(text))
	if value == "max" {
		return 0, nil
	}
	return strconv.ParseInt(value, 10, 64)
}
