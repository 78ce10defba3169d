package main

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// lineHandler writes what slog's own handlers write, byte for byte. The line of a
// request has only plain values, and its place in the source is not looked up.
// Lines with anything else are left to slog.
type lineHandler struct {
	slog.Handler // slog's own, over the same writer

	w    io.Writer // gets one line with each Write
	json bool
}

func newLineHandler(w io.Writer, rest slog.Handler, json bool) slog.Handler {
	return lineHandler{rest, w, json}
}

// logLines are buffers for one line each.
var logLines = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// Handle implements slog.Handler. Handlers with attributes or groups are slog's
// own.
func (h lineHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs := make([]slog.Attr, 0, 16) // on the stack
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	if ok, err := h.write(r.Time, r.Level, r.Message, attrs); ok {
		return err
	}
	return h.Handler.Handle(ctx, r)
}

// HandleLine does what Handle does with a record of these.
func (h lineHandler) HandleLine(ctx context.Context, at time.Time, level slog.Level, message string, attrs []slog.Attr) error {
	if ok, err := h.write(at, level, message, attrs); ok {
		return err
	}
	r := slog.NewRecord(at, level, message, 0)
	r.AddAttrs(attrs...)
	return h.Handler.Handle(ctx, r)
}

// write reports false if something is not plain.
func (h lineHandler) write(at time.Time, level slog.Level, message string, attrs []slog.Attr) (ok bool, err error) {
	line := logLines.Get().(*[]byte)
	defer logLines.Put(line)
	if h.json {
		*line, ok = appendJSONLine((*line)[:0], at, level, message, attrs)
	} else {
		*line, ok = appendTextLine((*line)[:0], at, level, message, attrs)
	}
	if !ok {
		return false, nil
	}
	_, err = h.w.Write(*line)
	return true, err
}

// appendTextLine reports false if something is not plain.
func appendTextLine(b []byte, at time.Time, level slog.Level, message string, attrs []slog.Attr) ([]byte, bool) {
	if at.IsZero() {
		return b, false
	}
	b = append(b, "time="...)
	b = appendMillis(b, at.Round(0))
	b = append(append(b, " level="...), level.String()...)
	b, ok := appendText(append(b, " msg="...), message)
	for _, a := range attrs {
		if ok = ok && textForm(a.Key) == asItIs; !ok {
			return b, false
		}
		b = append(append(append(b, ' '), a.Key...), '=')
		switch a.Value.Kind() {
		case slog.KindString:
			b, ok = appendText(b, a.Value.String())
		case slog.KindInt64:
			b = strconv.AppendInt(b, a.Value.Int64(), 10)
		case slog.KindDuration:
			b = append(b, a.Value.Duration().String()...)
		default:
			ok = false
		}
	}
	return append(b, '\n'), ok
}

// appendJSONLine reports false if something is not plain.
func appendJSONLine(b []byte, at time.Time, level slog.Level, message string, attrs []slog.Attr) ([]byte, bool) {
	if year := at.Year(); at.IsZero() || year < 0 || year > 9999 {
		return b, false
	}
	b = append(b, `{"time":"`...)
	b = at.Round(0).AppendFormat(b, time.RFC3339Nano)
	b = append(append(b, `","level":"`...), level.String()...)
	b, ok := appendJSON(append(b, `","msg":`...), message)
	for _, a := range attrs {
		if ok = ok && a.Key != ""; !ok {
			return b, false
		}
		if b, ok = appendJSON(append(b, ','), a.Key); !ok {
			return b, false
		}
		b = append(b, ':')
		switch a.Value.Kind() {
		case slog.KindString:
			b, ok = appendJSON(b, a.Value.String())
		case slog.KindInt64:
			b = strconv.AppendInt(b, a.Value.Int64(), 10)
		case slog.KindDuration:
			b = strconv.AppendInt(b, int64(a.Value.Duration()), 10)
		default:
			ok = false
		}
	}
	return append(b, '}', '\n'), ok
}

// appendMillis appends a time as slog's text handler writes it: RFC 3339 with
// milliseconds. RFC3339Nano is the layout that package time formats fast. It cuts
// zeros off at the end, and so there is one more digit that is none.
func appendMillis(b []byte, t time.Time) []byte {
	const kept = len("2006-01-02T15:04:05.000")
	from := len(b)
	b = t.Truncate(time.Millisecond).Add(time.Millisecond/10).AppendFormat(b, time.RFC3339Nano)
	return append(b[:from+kept], b[from+kept+1:]...)
}

// form is how a string is written.
type form int

const (
	asItIs form = iota
	quoted      // between quotes, with nothing escaped in between
	special
)

func textForm(s string) form {
	f := asItIs
	if s == "" {
		f = quoted
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ', c == '=':
			f = quoted
		case c < ' ', c > '~', c == '"', c == '\\':
			return special
		}
	}
	return f
}

func appendText(b []byte, s string) ([]byte, bool) {
	switch textForm(s) {
	case asItIs:
		return append(b, s...), true
	case quoted:
		return append(append(append(b, '"'), s...), '"'), true
	}
	return b, false
}

func appendJSON(b []byte, s string) ([]byte, bool) {
	if textForm(s) == special {
		return b, false
	}
	return append(append(append(b, '"'), s...), '"'), true
}
