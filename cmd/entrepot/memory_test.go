package main

import (
	"bytes"
	"log/slog"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/limits"
)

// someContent is content of a size, with the limit it was given last.
type someContent struct{ bytes, limit int64 }

func (c *someContent) Bytes() int64  { return c.bytes }
func (c *someContent) Limit(n int64) { c.limit = n }

func TestContentShrinksAsTheRestNeedsItsMemory(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	const mib = 1 << 20
	var lines bytes.Buffer
	content := &someContent{bytes: 20 * mib}
	p := newMemoryPolicy(content, 40*mib, machine{Limits: limits.Limits{Memory: 128 * mib}}, slog.New(slog.NewTextHandler(&lines, nil)))
	if got := debug.SetMemoryLimit(-1); got < 70*mib || got > 90*mib {
		t.Errorf("of 128 MiB Go may manage %d MiB", got/mib)
	}
	for _, c := range []struct {
		name       string
		use        use
		least, cap int64 // of the content, in MiB
	}{
		{"little else", use{live: 30 * mib, rest: 5 * mib}, 32, 32},
		{"as much again", use{live: 50 * mib, rest: 8 * mib}, 8, 20},
		{"too much", use{live: 120 * mib, rest: 8 * mib}, 1, 1},
		{"little else again", use{live: 30 * mib, rest: 5 * mib}, 32, 32},
	} {
		p.apply(c.use)
		if content.limit < c.least*mib || content.limit > c.cap*mib {
			t.Errorf("%s: content may have %.1f MiB", c.name, float64(content.limit)/mib)
		}
	}
	if n := strings.Count(lines.String(), "memory is short"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

func TestMemoryAboveHalfOfWhatThereIsIsAWarning(t *testing.T) {
	for _, c := range []struct {
		memory, limit int64
		want          bool
	}{{65 << 20, 128 << 20, true}, {64 << 20, 128 << 20, false}, {1 << 40, 0, false}} {
		var lines bytes.Buffer
		warnOfMemory(config.Cache{Memory: config.Size{Bytes: c.memory}}, machine{Limits: limits.Limits{Memory: c.limit}}, slog.New(slog.NewTextHandler(&lines, nil)))
		if got := strings.Contains(lines.String(), "level=WARN"); got != c.want {
			t.Errorf("%d of %d: %s", c.memory, c.limit, &lines)
		}
	}
}
