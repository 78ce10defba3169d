// Command bench measures entrepot beside other ways to cache a registry, in
// one run on one machine, and prints a page of results.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// programs are those that are measured.
type programs struct{ entrepot, registry, nginx string }

func run() error {
	var p programs
	var work, bare, before, scale, rows string
	var cert certificate
	var soak, referrers, far, hits, inMemory bool
	flag.StringVar(&p.entrepot, "entrepot", "", "the program")
	flag.StringVar(&p.registry, "registry", "", "distribution's registry")
	flag.StringVar(&p.nginx, "nginx", "", "nginx")
	flag.StringVar(&work, "work", "", "an empty folder")
	flag.BoolVar(&soak, "soak", false, "measure only the soak, as in a small container, and print it")
	flag.BoolVar(&referrers, "referrers", false, "measure only lookups of referrers, and print them")
	flag.BoolVar(&far, "lines", false, "measure only cold pulls over lines of several kinds, and print them")
	flag.BoolVar(&hits, "hits", false, "measure only hits of small answers over each protocol, and print them")
	flag.StringVar(&before, "before", "", "with -hits or -scale: another build of the program, which is measured beside it")
	flag.BoolVar(&inMemory, "in-memory", false, "with -bare: have the answers in a map")
	flag.StringVar(&cert.certFile, "cert", "", "with -bare: serve with TLS, and this certificate")
	flag.StringVar(&cert.keyFile, "key", "", "its key")
	flag.StringVar(&scale, "scale", "", "measure only caches of so many small images, as in 1000,10000,100000, and write SCALE.md")
	flag.StringVar(&rows, "rows", "", "with -scale: only these of idle, ls, purge, scrub, pins, eviction")
	flag.StringVar(&bare, "bare", "", "serve that folder's files at this address with net/http alone, and measure nothing")
	flag.Parse()
	if p.entrepot == "" && bare == "" || work == "" {
		return fmt.Errorf("-entrepot and -work are needed")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if bare != "" {
		return serveBare(ctx, bare, work, inMemory, cert)
	}
	if scale != "" {
		return runScale(ctx, p.entrepot, before, work, scale, rows)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	if soak {
		marks, err := measureSoak(ctx, p.entrepot, work)
		for _, m := range marks {
			fmt.Printf("%+v\n", m)
		}
		return err
	}
	if hits {
		table, err := measureHits(ctx, p, before, work)
		fmt.Print(table)
		return err
	}
	if far {
		table, err := linesTable(ctx, p.entrepot, work)
		fmt.Print(table)
		return err
	}
	if referrers {
		lookups, err := measureReferrers(ctx, p.entrepot, work)
		if err == nil {
			fmt.Print(referrersTable(lookups))
		}
		return err
	}
	return measure(ctx, p, work)
}

// measure starts each server once, with an empty cache, and measures them in
// turns, so that what the machine does meanwhile falls on all of them.
func measure(ctx context.Context, p programs, work string) error {
	up, err := startUpstream()
	if err != nil {
		return err
	}
	defer up.stop()
	kinds, err := kindsOf(p, up)
	if err != nil {
		return err
	}
	servers, err := startServers(ctx, kinds, work, nil)
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	if err != nil {
		return err
	}
	for _, s := range servers {
		fmt.Fprintf(os.Stderr, "bench: %d clients, one cold blob: %s\n", coldClients, s.name)
		if s.caches {
			if s.cold, err = measureCold(ctx, s, up); err != nil {
				return fmt.Errorf("%s, cold: %w", s.name, err)
			}
		}
	}
	for round := range warmRounds {
		for _, s := range servers {
			fmt.Fprintf(os.Stderr, "bench: warm, round %d of %d: %s\n", round+1, warmRounds, s.name)
			if err := measureWarm(ctx, s, up); err != nil {
				return fmt.Errorf("%s, warm: %w", s.name, err)
			}
		}
	}
	small, err := measureHits(ctx, p, "", work)
	if err != nil {
		return fmt.Errorf("hits: %w", err)
	}
	over, err := linesTable(ctx, p.entrepot, work)
	if err != nil {
		return fmt.Errorf("lines: %w", err)
	}
	fmt.Fprintln(os.Stderr, "bench: referrers")
	lookups, err := measureReferrers(ctx, p.entrepot, work)
	if err != nil {
		return fmt.Errorf("referrers: %w", err)
	}
	fmt.Fprintln(os.Stderr, "bench: soak")
	soaked, err := measureSoak(ctx, p.entrepot, work)
	if err != nil {
		return fmt.Errorf("soak: %w", err)
	}
	return writePage(filepath.Join(work, "RESULTS.md"), servers, small+over+referrersTable(lookups), soaked)
}
