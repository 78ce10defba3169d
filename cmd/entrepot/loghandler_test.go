package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/entrepot/entrepot/config"
)

// FuzzLinesAreThoseOfSlog: whoever reads the log can't tell which handler wrote a
// line.
func FuzzLinesAreThoseOfSlog(f *testing.F) {
	f.Add("request", "docker.io", "containerd/v2.1.4", int64(200), int64(1234567), int64(1764357600123456789))
	f.Add("", "", "", int64(-1), int64(0), int64(1))
	f.Add("two words", "a=b", `quo"ted \ back`, int64(0), int64(-5), int64(1764357600120000000))
	f.Add("ünï\x00code", "\x7f<&>", "tab\tline\nend\xff\u2028", int64(1)<<62, int64(3600e9), int64(1764357600000000000))
	f.Fuzz(func(t *testing.T, message, key, value string, number, took, at int64) {
		for _, c := range []config.Log{{Level: "info", Format: "text"}, {Level: "info", Format: "json"}} {
			for name, more := range map[string][]slog.Attr{
				"plain": nil, "error": {slog.Any("error", errors.New(value))}, "float": {slog.Float64("x", float64(took)/3)},
				"empty": {{}}, "nameless": {slog.String("", value)}, "named": {slog.String(key, value)}, "group": {slog.Group(key, slog.Int("n", 1))},
			} {
				for _, level := range []slog.Level{slog.LevelInfo, slog.LevelWarn, slog.LevelError + 1} {
					r := slog.NewRecord(time.Unix(0, at), level, message, 0)
					r.AddAttrs(slog.String("method", value), slog.Int64("bytes", number), slog.Duration("took", time.Duration(took)), slog.Int("status", 200))
					r.AddAttrs(more...)
					var got, want bytes.Buffer
					if err := newLineHandler(&got, newLogger(&got, c).Handler(), c.Format == "json").Handle(context.Background(), r); err != nil {
						t.Fatal(err)
					}
					if err := newLogger(&want, c).Handler().Handle(context.Background(), r); err != nil {
						t.Fatal(err)
					}
					if got.String() != want.String() {
						t.Errorf("%s, %s:\n%q\nwant\n%q", c.Format, name, got.String(), want.String())
					}
				}
			}
		}
	})
}

func TestALineOfARequestAllocatesNothingButItsDuration(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		log, queue := newQueuedLogger(discard{}, config.Log{Level: "info", Format: format})
		r := slog.NewRecord(time.Now(), slog.LevelInfo, "request", 0)
		r.AddAttrs(slog.String("method", "GET"), slog.Duration("took", 12345*time.Nanosecond), slog.Int64("bytes", 2048))
		h := log.Handler()
		if n := testing.AllocsPerRun(100, func() { _ = h.Handle(context.Background(), r) }); n > 1 {
			t.Errorf("%s: a line allocates %v times", format, n)
		}
		queue.end()
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func TestTheLogKeepsItsAttributesAndItsOrder(t *testing.T) {
	var got bytes.Buffer
	log, queue := newQueuedLogger(&got, config.Log{Level: "info", Format: "text"})
	log.Info("one")
	log.With("of", "three").Info("two")
	log.WithGroup("g").Info("three", "n", 3)
	log.Debug("none")
	queue.end()
	var messages []string
	for _, line := range bytes.Split(bytes.TrimSpace(got.Bytes()), []byte("\n")) {
		messages = append(messages, string(line[bytes.Index(line, []byte("msg=")):]))
	}
	if want := []string{"msg=one", "msg=two of=three", "msg=three g.n=3"}; !slices.Equal(messages, want) {
		t.Errorf("%q, want %q", messages, want)
	}
}
