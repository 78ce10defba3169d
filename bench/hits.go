package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const hitRounds = 5

const referrersOfOne = "referrers, one"

// measureHits measures small answers that are cached, over each protocol, and
// returns the page's section about them. The servers take turns within a round. If
// before is the program of another build, it is measured beside this one.
func measureHits(ctx context.Context, p programs, before, work string) (string, error) {
	up, err := startUpstream()
	if err != nil {
		return "", err
	}
	defer up.stop()
	cert, err := newCertificate(work)
	if err != nil {
		return "", err
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for i, cert := range []*certificate{nil, cert} {
		started, err := startHitServers(ctx, p, before, filepath.Join(work, fmt.Sprintf("hits%d", i)), up, cert)
		servers = append(servers, started...)
		if err != nil {
			return "", err
		}
	}
	for round := range hitRounds {
		fmt.Fprintf(os.Stderr, "bench: hits, round %d of %d\n", round+1, hitRounds)
		for _, protocol := range protocols {
			for _, q := range smallQuestions(up, protocol) {
				for _, s := range servers {
					if s.cert != nil != protocol.tls {
						continue
					}
					result, err := ask(ctx, s, up, q)
					if err != nil {
						return "", fmt.Errorf("%s, %s, %s: %w", s.name, protocol.name, q.name, err)
					}
					s.warm[protocol.name+q.name] = append(s.warm[protocol.name+q.name], result)
				}
			}
		}
	}
	return hitsTable(servers, up), nil
}

// protocol is what a client speaks.
type protocol struct {
	name       string
	tls, http2 bool
}

var protocols = []protocol{{"HTTP/1.1", false, false}, {"HTTP/1.1 with TLS", true, false}, {"HTTP/2 with TLS", true, true}}

func smallQuestions(up *upstream, p protocol) []question {
	all := questions(up)[:3]
	one := all[0]
	one.name, one.path, one.want = referrersOfOne, referrersPath(up.manifest.digest), content{}
	all = append(all, one)
	for i := range all {
		all[i].http2 = p.http2
	}
	return all
}

func startHitServers(ctx context.Context, p programs, before, work string, up *upstream, cert *certificate) ([]*server, error) {
	if err := os.Mkdir(work, 0o755); err != nil {
		return nil, err
	}
	kinds, err := kindsOf(p, up)
	if err != nil {
		return nil, err
	}
	kinds = slices.DeleteFunc(kinds, func(k serverKind) bool { return k.name == distributionName })
	if before != "" {
		other := kinds[0]
		other.name, other.program = "entrepot before", before
		kinds = slices.Insert(kinds, 1, other)
	}
	last := &kinds[len(kinds)-1]
	last.name = "answers in a map, net/http alone"
	arguments := last.arguments
	last.arguments = func(s *server) ([]string, error) {
		all, err := arguments(s)
		return append(all, "-in-memory"), err
	}
	return startServers(ctx, kinds, work, cert)
}

func hitsTable(servers []*server, up *upstream) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
## Small answers that are cached, over each protocol: the server's CPU time

The medians of %d rounds of %d requests over %d connections (with HTTP/2 over one), the servers in turns; in brackets the ratio
to nginx in the same round, also the median. nginx logs the same fields, and gathers the lines. "answers in a map" is net/http with a handler that has
nothing to do but to look up a path.

`, hitRounds, warmRequests, warmClients)
	for _, protocol := range protocols {
		all := smallQuestions(up, protocol)
		fmt.Fprintf(&b, "| %s |", protocol.name)
		for _, q := range all {
			fmt.Fprintf(&b, " %s |", q.name)
		}
		b.WriteString("\n" + strings.Repeat("|---", len(all)+1) + "|\n")
		var nginx *server
		for _, s := range servers {
			if s.cert != nil == protocol.tls && strings.HasPrefix(s.name, "nginx") {
				nginx = s
			}
		}
		for _, s := range servers {
			if s.cert != nil != protocol.tls {
				continue
			}
			fmt.Fprintf(&b, "| %s |", s.name)
			for _, q := range all {
				cpu, upstream := median(s.warm[protocol.name+q.name])
				fmt.Fprintf(&b, " %.1f µs%s%s |", float64(cpu)/float64(time.Microsecond), ratioTo(nginx, s, protocol.name+q.name), upstream)
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// ratioTo is the median of a server's ratios to another one, round by round.
func ratioTo(other, s *server, name string) string {
	if other == nil || other == s {
		return ""
	}
	var ratios []float64
	for round, r := range s.warm[name] {
		ratios = append(ratios, r.cpu.Seconds()/other.warm[name][round].cpu.Seconds())
	}
	slices.Sort(ratios)
	return fmt.Sprintf(" (%.2f)", ratios[len(ratios)/2])
}
