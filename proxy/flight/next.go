package flight

// span is a part of the content: n bytes from an offset, or all the rest where n
// is negative.
type span struct{ from, n int64 }

// next is the part that is asked of the source next. It is all that is missing,
// which is what lies behind what has come.
func (f *Flight) next() span { return span{from: f.written, n: -1} }
