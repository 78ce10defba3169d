package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// weatherCellsFile is where the suite of a network of its own says what it saw.
const weatherCellsFile = "ENTREPOT_E2E_WEATHER_CELLS"

// TestPullsInAnyWeather has clients pull through reverse proxies and over lines
// that are far, thin, forgetful or dead, all at once, in namespaces of their own.
func TestPullsInAnyWeather(t *testing.T) {
	s := readSuite(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := s.folder(t)
	file := filepath.Join(dir, "cells.json")
	env := append(os.Environ(), "ENTREPOT_E2E_WORK="+dir, weatherCellsFile+"="+file)
	stdout, stderr, err := tryLong(t.Context(), "", env, "/usr/bin/unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		program, "-test.run", "^TestWeatherInside$", "-test.v", "-test.timeout", "6m", "-test.parallel", "500")
	t.Logf("%s%s", stdout, stderr)
	if err != nil {
		t.Error(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var seen []cellResult
	if err := json.Unmarshal(content, &seen); err != nil {
		t.Fatal(err)
	}
	text := s.weatherTable(t, seen)
	t.Log("\n" + text)
	put(t, "weather", weatherHead+text)
}

// between is the time between the beginnings of two cells.
const between = 700 * time.Millisecond

// TestWeatherInside is what runs there; without a file there is nobody to tell.
func TestWeatherInside(t *testing.T) {
	file := os.Getenv(weatherCellsFile)
	if file == "" {
		return
	}
	s := readSuite(t)
	n := newWeatherNet(t, s.folder(t))
	m := s.newMirror(t, nil)
	all := cells(m, n)
	certificate := m.leadByNames(t, n, all)
	content := s.startDistribution(t, s.folder(t))
	m.start(t)
	s.startFronts(t, m)

	clients := map[string]weatherPuller{}
	for _, c := range weatherClients {
		own := slices.DeleteFunc(slices.Clone(all), func(made *cell) bool { return made.client.name != c.name })
		clients[c.name] = c.start(t, s, m, own)
	}
	var mu sync.Mutex
	var seen []cellResult
	t.Run("cells", func(t *testing.T) {
		began := time.Now()
		for i, c := range all {
			t.Run(strings.TrimSuffix(c.name, ".lan"), func(t *testing.T) {
				t.Parallel()
				// Pulls that begin at once wait for processors, and not for the weather.
				time.Sleep(time.Until(began.Add(time.Duration(i) * between)))
				c.prepare(t, s, content.host, certificate)
				r := c.run(t, clients[c.client.name])
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, r)
			})
		}
	})
	written, err := json.Marshal(seen)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, written, 0o644); err != nil {
		t.Fatal(err)
	}
}

const weatherHead = `## In any weather

Each client pulls an image that no other row has a byte of. nginx and HAProxy stand in front of entrepot, with the configuration that
Debian's packages install. Behind entrepot is a line that does what the row says, and then distribution, by TLS. The firewall is iptables
in a network namespace. The rows run beside each other, through one entrepot; each has an upstream of its own. What arrives is compared
with what was pushed, digest by digest. "Sent" is what the registry sent, as a part of the image, and may be 1.02 at most.

A black hole loses every packet. Its bound counts for each time that the client asks again (crane: three times), and when the hole is gone
the pull has to be whole. A parent that thinks does so for each manifest and blob. If the one who asked has left, it drops what it has, and
so does one that is silent in a layer. nginx holds up to 1 GiB of what a client has yet to read; in the rows that say so it holds less, so
that a layer of a few MiB fills it.

`

// weatherTable is a line for each client in each weather.
func (s *suite) weatherTable(t *testing.T, seen []cellResult) string {
	t.Helper()
	by := map[string]cellResult{}
	for _, r := range seen {
		by[r.Weather+r.Client+r.Front] = r
	}
	var b strings.Builder
	b.WriteString("| weather | client | version |")
	for _, f := range fronts {
		fmt.Fprintf(&b, " through %s | sent |", f.name)
	}
	b.WriteString(" within |\n|---|---|---|" + strings.Repeat("---|---|", len(fronts)) + "---|\n")
	for _, w := range weathers {
		for _, client := range weatherClients {
			fmt.Fprintf(&b, "| %s | %s | %s |", w.name, client.name, s.tool(t, client.tool).version)
			for _, f := range fronts {
				r, ok := by[w.name+client.name+f.name]
				if !ok {
					t.Errorf("nothing was seen of %s by %s through %s", w.name, client.name, f.name)
				}
				fmt.Fprintf(&b, " %s | %.3f |", r.outcome(), r.Ratio)
			}
			within := w.within.Seconds()
			if w.fails {
				within *= float64(client.tries)
			}
			fmt.Fprintf(&b, " %.0f s |\n", within)
		}
	}
	return b.String()
}

func (r cellResult) outcome() string {
	text := cmp.Or(map[bool]string{true: "an error"}[r.Failed], "whole") + fmt.Sprintf(", %.1f s", r.Seconds)
	if r.Whole > 0 {
		text += fmt.Sprintf("; then whole, %.1f s", r.Whole)
	}
	return text
}
