package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/entrepot/entrepot/config"
)

const (
	// memoryInterval is how often the use of memory is looked at. Between two
	// looks the garbage collector keeps within the limit.
	memoryInterval = 500 * time.Millisecond
	// memoryReserve is room for a burst of requests, in bytes.
	memoryReserve = 8 << 20
	// leastContent is what small content may always have, in bytes.
	leastContent = 1 << 20
	// maxOutside is what a process has outside of the memory that Go manages,
	// in bytes: the program itself, pages of the records, buffers of sockets.
	maxOutside = 48 << 20
)

// contentShare is how much of cache.memory the content may have. What the
// garbage collector has not collected yet takes the rest.
func contentShare(memory int64) int64 { return memory / 5 * 4 }

// smallContent is what gives memory back: small content that is on disk, too.
type smallContent interface {
	Bytes() int64
	Limit(bytes int64)
}

// memoryPolicy keeps a process within the memory that it has.
type memoryPolicy struct {
	content smallContent
	most    int64 // that the content may have
	soft    int64 // what Go may manage in all; zero if that is not known
	log     *slog.Logger
	shrunk  bool // it was logged
	tunesGC bool // the environment does not set GOGC
	percent int  // the last that was set
}

// warnOfMemory warns if the configured memory leaves too little for the rest.
func warnOfMemory(c config.Cache, m machine, log *slog.Logger) {
	if m.Memory > 0 && c.Memory.Bytes > m.Memory/2 {
		log.Warn("cache.memory is more than half of the memory that there is: downloads and connections may find none",
			"cache.memory", c.Memory.String(), "memory", size(m.Memory))
	}
}

// newMemoryPolicy sets the limit up to which Go lets garbage lie, unless the
// environment has set it.
func newMemoryPolicy(content smallContent, memory int64, m machine, log *slog.Logger) *memoryPolicy {
	p := &memoryPolicy{content: content, most: contentShare(memory), log: log, percent: 100}
	p.tunesGC = os.Getenv("GOGC") == ""
	switch {
	case os.Getenv("GOMEMLIMIT") != "":
		p.soft = debug.SetMemoryLimit(-1)
	case m.Memory > 0:
		p.soft = m.Memory - max(m.Memory/4, min(m.Memory/5*2, maxOutside))
		debug.SetMemoryLimit(p.soft)
	}
	return p
}

// run looks at the use of memory until ctx ends.
func (p *memoryPolicy) run(ctx context.Context) {
	ticker := time.NewTicker(memoryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.apply(readUse())
		}
	}
}

// use is what Go manages, in bytes.
type use struct {
	live int64 // objects that were reachable when they were looked at last
	rest int64 // stacks, tables: what is not the heap
}

func readUse() use {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(samples)
	rest := int64(samples[1].Value.Uint64())
	for _, heap := range samples[2:] {
		rest -= int64(heap.Value.Uint64())
	}
	return use{int64(samples[0].Value.Uint64()), rest}
}

// apply shrinks the content as far as the others need its memory, and has
// garbage collected more often the more of the heap is content: that can be
// dropped, and its garbage would take as much as itself.
func (p *memoryPolicy) apply(now use) {
	cached := p.content.Bytes()
	others := max(now.live-cached, 0)
	if p.soft > 0 {
		room := p.soft - now.rest - memoryReserve - others*3/2
		allowed := max(min(p.most, room/5*4), leastContent)
		p.content.Limit(allowed)
		p.note(allowed < p.most/2, allowed)
	}
	if !p.tunesGC {
		return
	}
	headroom := others + cached/4 + memoryReserve
	percent := int(min(max(100*headroom/max(now.live, 1), 20), 100))
	if percent < p.percent-5 || percent > p.percent+5 {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
}

// note logs once that the content gets much less than is configured.
func (p *memoryPolicy) note(short bool, allowed int64) {
	if short && !p.shrunk {
		p.log.Warn("memory is short: little small content is kept in it", "content", size(allowed), "configured", size(p.most))
	}
	p.shrunk = p.shrunk || short
}
