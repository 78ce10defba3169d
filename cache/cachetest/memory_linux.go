package cachetest

import (
	"os"
	"syscall"
)

// memory is a file system in memory, on most machines.
const memory = "/dev/shm"

// mostInMemory is more than the folders of all tests take that run at once.
const mostInMemory = 1 << 30

// InMemory has the folders of tests be in memory from now on. It is for the
// tests of packages to which a disk is a folder like any other: most of their
// time was the disk's. The tests of cache/disk and of the program stay on the
// disk. So do all where TMPDIR names a folder, or memory is scarce.
func InMemory() {
	var has syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(memory, &has) != nil || has.Bavail*uint64(has.Bsize) < mostInMemory {
		return
	}
	if probe, err := os.MkdirTemp(memory, "entrepot-test-"); err != nil || os.Remove(probe) != nil {
		return
	}
	if err := os.Setenv("TMPDIR", memory); err != nil {
		panic(err)
	}
}
