//go:build !linux

package upstream

import (
	"syscall"
	"time"
)

// limitUnacknowledged does nothing: net has no portable option for it.
func limitUnacknowledged(syscall.RawConn, time.Duration) error { return nil }
