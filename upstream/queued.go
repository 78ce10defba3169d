package upstream

import "context"

type queuedKey struct{}

// WithQueued returns a context that tells of a request while it waits for a
// place behind others, before anything is sent: notice is called with true when
// such a wait begins, and with false when it is over. Who wants nothing of it any
// more ends the context. notice MUST NOT block.
func WithQueued(ctx context.Context, notice func(waits bool)) context.Context {
	return context.WithValue(ctx, queuedKey{}, notice)
}

// queued tells of a wait that begins. The caller calls end when it is over.
func queued(ctx context.Context) (end func()) {
	notice, ok := ctx.Value(queuedKey{}).(func(waits bool))
	if !ok {
		return func() {}
	}
	notice(true)
	return func() { notice(false) }
}
