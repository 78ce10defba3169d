//go:build !linux

package disk

// unmapPages leaves it to the kernel.
func unmapPages(uintptr, int64) {}
