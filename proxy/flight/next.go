package flight

// span is a part of the content: n bytes starting at an offset, or all the rest
// if n is negative.
type span struct{ from, n int64 }

// next is the part to request from the source next: everything after what has
// been received.
func (f *Flight) next() span { return span{from: f.written, n: -1} }
