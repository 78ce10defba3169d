package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// runScale measures caches of several sizes, and writes SCALE.md.
func runScale(ctx context.Context, program, before, work, sizes, rows string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Hour)
	defer cancel()
	if err := sameAsPulled(ctx, program, work, 40); err != nil {
		return fmt.Errorf("compare what is made with what is pulled: %w", err)
	}
	programs := []string{program}
	if before != "" {
		programs = []string{before, program}
	}
	var all []scaleResult
	for size := range strings.SplitSeq(sizes, ",") {
		images, err := strconv.Atoi(size)
		if err != nil {
			return fmt.Errorf("-scale: %w", err)
		}
		results, err := measureScale(ctx, programs, work, images, rows)
		if all = append(all, results...); err != nil {
			return err
		}
	}
	page := scalePage(all, before != "")
	fmt.Print(page)
	return os.WriteFile(filepath.Join(work, "SCALE.md"), []byte(page), 0o644)
}

// scaleRow is a row of the table.
type scaleRow struct {
	what, goal string
	value      func(scaleResult) string
}

func mib(n int64) string           { return fmt.Sprintf("%d MiB", n>>20) }
func kib(n float64) string         { return fmt.Sprintf("%.1f KiB", n/1024) }
func short(d time.Duration) string { return fmt.Sprintf("%.3g s", d.Seconds()) }
func fraction(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
func (l latencies) String() string       { return fraction(l.median) + ", " + fraction(l.p99) }
func each(n int64, r scaleResult) string { return kib(float64(n) / float64(r.Images)) }

func scaleRows() []scaleRow {
	return []scaleRow{
		{"start to the first answer", "", func(r scaleResult) string { return fraction(r.Start) }},
		{"resident, idle", "", func(r scaleResult) string { return mib(r.Idle) }},
		{"written, a widely spread hit", "≤ 256 B", func(r scaleResult) string { return fmt.Sprintf("%.0f B", r.HitWrite) }},
		{"eviction, images a second", "≥ 700", func(r scaleResult) string { return fmt.Sprintf("%.0f", r.EvictRate) }},
		{"eviction, CPU an image", "≤ 1.1 ms", func(r scaleResult) string { return fraction(r.EvictCPU) }},
		{"eviction, written an image", "≤ 48 KiB", func(r scaleResult) string { return kib(r.EvictWritten) }},
		{"eviction, peak resident", "", func(r scaleResult) string { return mib(r.EvictPeak) }},
		{"`ls`, first line", "0.1 s", func(r scaleResult) string { return short(r.ListFirst) }},
		{"`ls`, all", "", func(r scaleResult) string { return short(r.ListAll) }},
		{"`ls`, peak of the server", "≤ 64 MiB", func(r scaleResult) string { return mib(r.ListServer) }},
		{"`ls`, peak of the command", "≤ 64 MiB", func(r scaleResult) string { return mib(r.ListCommand) }},
		{"`purge` of a tag", "≤ 50 ms", func(r scaleResult) string { return fraction(r.Purge) }},
		{"`purge` of a tag, peak of the server", "", func(r scaleResult) string { return mib(r.PurgePeak) }},
		{"pins by pattern, all whole, CPU an idle minute", "≤ 0.2 s", func(r scaleResult) string { return short(r.PinsMinute) }},
		{"`scrub`, files", "", func(r scaleResult) string { return strconv.Itoa(r.ScrubFiles) }},
		{"`scrub`, CPU", "≤ 5 s of 380,000 files", func(r scaleResult) string { return short(r.ScrubCPU) }},
		{"`scrub`, lines", "one a second", func(r scaleResult) string { return fmt.Sprintf("%d in %s", r.ScrubLines, short(r.Scrub)) }},
		{"disk, an image", "≤ 12 KB", func(r scaleResult) string { return each(r.DiskBytes, r) }},
		{"… of that content as it was pulled", "", func(r scaleResult) string { return each(r.Content, r) }},
		{"… database and journal", "", func(r scaleResult) string { return each(r.Records, r) + ", " + each(r.Log, r) }},
		{"hits, median and p99, alone", "", func(r scaleResult) string { return r.Alone.String() }},
		{"… beside `ls`", "p99 ≤ 2 × alone", func(r scaleResult) string { return r.BesideList.String() }},
		{"… beside `purge`", "p99 ≤ 2 × alone", func(r scaleResult) string { return r.BesidePurge.String() }},
		{"… beside `scrub`", "p99 ≤ 2 × alone", func(r scaleResult) string { return r.BesideScrub.String() }},
		{"… beside eviction", "p99 ≤ 2 × alone", func(r scaleResult) string { return r.BesideEvict.String() }},
	}
}

func scalePage(all []scaleResult, compared bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What grows with the cache

Written by `+"`bench -scale`"+` on one machine (%s, %d CPUs, %s), where clients, upstream and server were together. Images have one or
two layers of 3 KB; every tenth has a referrer, listed by tag. The cache is made by the code that clients pull through, without HTTP
and without waiting for the disk; that it is what pulls make is checked first. Each row has a process of its own.

`, processor(), runtime.NumCPU(), runtime.Version())
	head, line := "| | goal |", "|---|---|"
	for i, r := range all {
		of := ""
		if compared {
			of = []string{" before", " after"}[i%2]
		}
		head, line = head+fmt.Sprintf(" %d%s |", r.Images, of), line+"---|"
	}
	fmt.Fprintln(&b, head)
	fmt.Fprintln(&b, line)
	for _, row := range scaleRows() {
		fmt.Fprintf(&b, "| %s | %s |", row.what, row.goal)
		for _, r := range all {
			fmt.Fprintf(&b, " %s |", row.value(r))
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}
