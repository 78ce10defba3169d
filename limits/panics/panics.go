// Package panics limits what a panic costs: the task that it happens in, and
// not the process with what it does for everybody else.
//
// Every goroutine that does more than wait defers [Report] or [Catch]. Whoever
// waits for the task gets an error, as of any other failure, and so it is not
// tried again sooner than after any other.
package panics

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// ErrPanic means that a task has ended with a panic. What is wrong with its
// input, if anything, is not known.
var ErrPanic = errors.New("internal error: the task has panicked")

// A Handler is told of each panic that was caught: of which task, with what
// value, and where. It must be safe for concurrent use.
type Handler func(task string, value any, stack []byte)

var handler atomic.Pointer[Handler]

// Handle sets the handler of this process. Without one, which nil means too,
// panics are not caught: a test that has one ends with it.
func Handle(h Handler) {
	if h == nil {
		handler.Store(nil)
		return
	}
	handler.Store(&h)
}

// Report is deferred by a task that nobody waits for.
func Report(task string) {
	if handler.Load() == nil {
		return
	}
	if value := recover(); value != nil {
		tell(task, value)
	}
}

// Catch is deferred by a task that returns an error. A panic becomes ErrPanic.
func Catch(task string, err *error) {
	if handler.Load() == nil {
		return
	}
	if value := recover(); value != nil {
		tell(task, value)
		*err = fmt.Errorf("%s: %w", task, ErrPanic)
	}
}

// tell tells the handler. It is called by the deferred function itself, so that
// the stack still has what panicked.
func tell(task string, value any) { (*handler.Load())(task, value, debug.Stack()) }
