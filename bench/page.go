package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// writePage writes the results as Markdown, to a file and to standard output.
// tables are the sections that were measured by themselves.
func writePage(path string, servers []*server, tables string, soaked []soakMark) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# Measurements

Written by `+"`bench/run`"+`: all in one run on one machine (%s, %d CPUs, %s), clients, upstream and servers together, over loopback.

## %d clients, one cold blob of 256 MiB, an upstream of %.0f MB/s

| server | upstream bytes ÷ blob bytes | worst first byte | last byte | resident memory growth | clients served |
|---|---|---|---|---|---|
`, processor(), runtime.NumCPU(), runtime.Version(), coldClients, lineRate/1e6)
	for _, s := range servers {
		if s.cold == nil {
			continue
		}
		fmt.Fprintf(&b, "| %s | %.2f | %s | %s | %.0f MiB | %d |\n", s.name, float64(s.cold.upstreamBytes)/blobSize,
			milliseconds(s.cold.worstFirstByte), milliseconds(s.cold.wall), float64(s.cold.memory)/(1<<20), s.cold.served)
	}
	fmt.Fprintf(&b, `
The goals for entrepot are 1.00, and less than 64 MiB.

## What is cached already: the server's CPU time

The median of %d rounds of %d requests over %d connections, and of %d requests for the big blob over one. Requests that went on
to the upstream are in brackets, of all in a round.

| server | %s | %s | %s | %s, per GB |
|---|---|---|---|---|
`, warmRounds, warmRequests, warmClients, warmBlobs, manifestByDigest, tagHead, smallBlob, bigBlob)
	for _, s := range servers {
		fmt.Fprintf(&b, "| %s |", s.name)
		for _, name := range []string{manifestByDigest, tagHead, smallBlob} {
			cpu, upstream := median(s.warm[name])
			fmt.Fprintf(&b, " %.0f µs%s |", float64(cpu)/float64(time.Microsecond), upstream)
		}
		cpu, upstream := median(s.warm[bigBlob])
		fmt.Fprintf(&b, " %.0f ms%s |\n", cpu.Seconds()*1000*1e9/blobSize, upstream)
	}
	b.WriteString("\n\"files, net/http alone\" is Go's own file server, which is what nothing but the serving costs.\n")
	b.WriteString(tables)
	fmt.Fprintf(&b, `
## A soak of entrepot: %d pulls of %d images by %d clients

As many as a fleet makes in an hour that starts a container each second, as fast as they go: images of three layers of which
one is shared, the newest most often. Each pull asks for the tag, the manifest, what refers to it and the blobs; some clients leave in
the middle, some ask for ranges, some for what is not there, and the upstream cuts one body of fifty. The cache may hold %d MiB,
a part of what is pulled. Each line was measured with no request under way.

| pulls | resident | goroutines | open files | kept | evicted so far |
|---|---|---|---|---|---|
`, soakPulls, soakImages, soakClients, soakRoom>>20)
	for _, m := range soaked {
		fmt.Fprintf(&b, "| %d | %d MiB | %d | %d | %d MiB | %d MiB |\n", m.pulls, m.resident>>20, m.goroutines, m.files, m.kept>>20, m.evicted>>20)
	}
	if _, err := os.Stdout.WriteString(b.String()); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// referrersTable is the page's section about lookups of referrers.
func referrersTable(lookups []referrersResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
## Referrers, of an upstream that takes %s for an answer

The first answer of all; the first that is not stale, where a list is so long that not all of it is opened at once; and the same
one warm: %d requests over %d connections, fewer of long lists. Of a registry that speaks 1.0, the referrers tag is read. What is
listed is opened, side by side.

| the upstream speaks | referrers | upstream requests, first answer | time | round trips | upstream requests, known | time | CPU time, warm | lookups per second, warm |
|---|---|---|---|---|---|---|---|---|
`, awayFor, referrersAsks, warmClients)
	for _, r := range lookups {
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %.1f | %d | %s | %.0f µs | %.0f |\n", r.speaks, r.count, r.first.requests, milliseconds(r.first.took),
			float64(r.first.took)/float64(awayFor), r.known.requests, milliseconds(r.known.took), float64(r.warm)/float64(time.Microsecond), r.second)
	}
	return b.String()
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func median(results []warmResult) (time.Duration, string) {
	sorted := slices.SortedFunc(slices.Values(results), func(a, b warmResult) int { return int(a.cpu - b.cpu) })
	middle := sorted[len(sorted)/2]
	if middle.upstream == 0 {
		return middle.cpu, ""
	}
	return middle.cpu, fmt.Sprintf(" (%d)", middle.upstream)
}

// processor is its name as Linux knows it.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}
