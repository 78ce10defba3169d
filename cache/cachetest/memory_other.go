//go:build !linux

package cachetest

// InMemory does nothing where it is not known how to have a folder in memory.
func InMemory() {}
