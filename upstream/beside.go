package upstream

import (
	"context"
	"fmt"
	"sync"
)

// ErrNoPlace means that a request beside others for the same content was not
// sent: there is no place for it that nobody else has a use for.
var ErrNoPlace = fmt.Errorf("%w: no place is free for one more connection", ErrUnavailable)

// besideShare is the share of the places that requests beside others may have,
// together with the one that they are beside: a quarter.
const besideShare = 4

type besideKey struct{}

// Beside returns a context for a request of a part of content of which other
// parts are received already. Such a request does not wait for a place, and
// fails with ErrNoPlace where others do. Those with different numbers, from 1
// on, have connections of their own, also where HTTP/2 would share one.
func Beside(ctx context.Context, number int) context.Context {
	return context.WithValue(ctx, besideKey{}, number)
}

// numberOf is the number of a request beside others; 0 if it is none.
func numberOf(ctx context.Context) int {
	n, _ := ctx.Value(besideKey{}).(int)
	return n
}

// acquireBeside takes the places of a request beside others, or none.
func (l limit) acquireBeside() (release func(), err error) {
	var taken []chan struct{}
	free := sync.OnceFunc(func() {
		for _, slots := range taken {
			<-slots
		}
	})
	for _, slots := range []chan struct{}{l.beside, l.blobs, l.all} {
		select {
		case slots <- struct{}{}:
			taken = append(taken, slots)
		default:
			free()
			return nil, ErrNoPlace
		}
	}
	return free, nil
}
