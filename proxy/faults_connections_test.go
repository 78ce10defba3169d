package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A connectionRow is what a relay in front of an upstream forgets, while images
// are pulled.
type connectionRow struct {
	name  string
	fault upstreamtest.Fault // of blobs
	auth  upstreamtest.Auth
	pull  func(p *relayed) string
	sees  string
	asked string // of the blob, in the end
}

// relayed is a mirror with short waits, of an upstream behind a relay.
type relayed struct {
	m      *mirror
	fake   *upstreamtest.Registry
	relay  *upstreamtest.Relay
	layers []string // paths of blobs, of the repositories app0, app1…
}

const (
	relayedImages = 10
	relayedSize   = 1 << 20
)

// image pulls an image, and says what a client sees.
func (p *relayed) image(i int) string {
	for _, path := range []string{fmt.Sprintf("/v2/app%d/manifests/1", i), p.layers[i]} {
		began := time.Now()
		a := p.m.get(path)
		switch took := time.Since(began); {
		case a.status != http.StatusOK || a.broken != nil:
			return fmt.Sprintf("%d %s %v", a.status, a.code, a.broken)
		case strings.Contains(path, "/blobs/") && len(a.body) != relayedSize:
			return fmt.Sprintf("%d bytes", len(a.body))
		case took > 20*time.Second: // the wait for a header is 30 s
			return fmt.Sprintf("200, after %s", took)
		}
	}
	return sound
}

// images pulls images at once.
func (p *relayed) images(from, to int) string {
	seen := make([]string, to-from)
	var all sync.WaitGroup
	for i := range seen {
		all.Go(func() { seen[i] = p.image(from + i) })
	}
	all.Wait()
	for _, s := range seen {
		if s != sound {
			return s
		}
	}
	return sound
}

func connectionRows() []connectionRow {
	const goesOn = "all, the rest"
	between := func(p *relayed) string {
		if first := p.images(0, 4); first != sound {
			return "before: " + first
		}
		<-time.After(20 * time.Millisecond) // the clock of real connections
		p.relay.Forget()
		for _, some := range [][2]int{{4, 8}, {8, 9}, {9, 10}} {
			if s := p.images(some[0], some[1]); s != sound {
				return s
			}
		}
		return sound
	}
	within := func(p *relayed) string {
		if a := p.m.get("/v2/app0/manifests/1"); a.status != http.StatusOK {
			return "before: " + a.code
		}
		p.fake.Transcript()
		p.relay.ForgetAfter(relayedSize / 2)
		return p.image(0)
	}
	needEnds := upstreamtest.RangesAsked(func(byteRange string) bool { return !strings.HasSuffix(byteRange, "-") })
	return []connectionRow{
		{name: "between pulls", pull: between, sees: sound},
		{name: "between pulls, and there is a token server", auth: upstreamtest.Auth{Scheme: "token"}, pull: between, sees: sound},
		{name: "between pulls, and blobs are in a storage", fault: upstreamtest.ToStorage(upstreamtest.Storage{}), pull: between, sees: sound},
		{name: "in the middle of a blob", pull: within, sees: sound, asked: goesOn},
		{name: "in the middle of a blob, and ranges need both ends", fault: needEnds, pull: within, sees: sound, asked: goesOn},
		{name: "in the middle of a blob, and there are no ranges", fault: upstreamtest.NoRange(nil), pull: within, sees: sound, asked: goesOn},
	}
}

func connectionFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range connectionRows() {
			for j, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
				t.Run(row.name+", "+protocol, func(t *testing.T) {
					t.Parallel()
					var opts []upstreamtest.Option
					if protocol == "HTTP/2" {
						opts = append(opts, upstreamtest.WithHTTP2())
					}
					runConnection(t, row, opts...)
				})
				asked := row.asked
				if asked == "" {
					asked = "all"
				}
				lines.add(2*i+j, row.name, protocol, row.sees, asked)
			}
		}
	})
	return "## Connections\n\nSomething in between forgets the connections that there are: what is sent on them is lost, without an error. New ones work.\n\n" +
		lines.table("when", "the protocol", "clients see", "the blob is asked for")
}

func runConnection(t *testing.T, row connectionRow, opts ...upstreamtest.Option) {
	fake := upstreamtest.New(t, append(opts, upstreamtest.WithAuth(row.auth))...)
	p := &relayed{fake: fake, relay: upstreamtest.NewRelay(t, fake)}
	for i := range relayedImages {
		repo := fmt.Sprintf("app%d", i)
		_, m := fake.AddImage(repo, "1", upstreamtest.Bytes(byte(i), relayedSize))
		p.layers = append(p.layers, "/v2/"+repo+"/blobs/"+m.Layers[0].Digest.String())
	}
	if row.fault != nil {
		fake.Always("GET blobs", row.fault)
	}
	p.m = newMirror(t, fake, setup{endpoint: p.relay.URL(), remote: func(o *upstream.RemoteOptions) {
		o.InsecureSkipVerify = true
		o.Waits = upstream.Timeouts{Header: 30 * time.Second, Idle: 3 * time.Second, Ping: time.Second, Pong: 300 * time.Millisecond}
	}})
	if got := row.pull(p); got != row.sees {
		t.Errorf("clients see %s, want %s", got, row.sees)
	}
	if row.asked == "" {
		return
	}
	var asked []string
	for _, line := range fake.Transcript() {
		if !strings.HasPrefix(line, "GET blobs app0 ") {
			continue
		}
		switch _, of, partly := strings.Cut(line, " bytes="); {
		case !partly:
			asked = append(asked, "all")
		case strings.HasSuffix(of, fmt.Sprintf("-%d", relayedSize-1)):
			if asked[len(asked)-1] != "the rest" { // a slow machine may need more than one
				asked = append(asked, "the rest")
			}
		default:
			asked = append(asked, of)
		}
	}
	if got := strings.Join(asked, ", "); got != row.asked {
		t.Errorf("asked for %s, want %s", got, row.asked)
	}
}
