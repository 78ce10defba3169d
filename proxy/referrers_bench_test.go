package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/metadata"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
)

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct {
	header http.Header
	status int
	bytes  int
}

func (n *nowhere) Header() http.Header { return n.header }
func (n *nowhere) Write(b []byte) (int, error) {
	n.bytes += len(b)
	return len(b), nil
}
func (n *nowhere) WriteHeader(status int)           { n.status = status }
func (n *nowhere) SetWriteDeadline(time.Time) error { return nil }
func (n *nowhere) FlushError() error                { return nil }

// listHit returns a function that asks for a list of so many that is kept.
func listHit(tb testing.TB, many int, query string) (ask func() *nowhere) {
	tb.Helper()
	o := mirrortest.NewOrigin()
	o.API = true
	m := mirrortest.New(tb, o, func(opts *pulling.Options) { opts.Rules.ReferrersTTL = time.Hour })
	subject, _ := o.Image("app", "1", mirrortest.Bytes(1, 50))
	list := metadata.Referrers{At: time.Now()}
	for i := range many {
		list.Manifests = append(list.Manifests, o.Attach(subject, fmt.Sprint("number ", i)))
		list.Manifests[i].ArtifactType = fmt.Sprint("application/vnd.example.", i%10)
	}
	m.Ledger.RecordReferrers(mirrortest.App, subject.Digest, list, nil)
	s := proxy.New(proxy.Options{Puller: m.Puller, Logger: slog.New(slog.DiscardHandler), Upstreams: []proxy.Upstream{{Name: "hub", Default: true}}})
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/v2/app/referrers/"+subject.Digest.String()+query, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return func() *nowhere {
		w := &nowhere{header: http.Header{}}
		s.ServeHTTP(w, req)
		return w
	}
}

// BenchmarkReferrersHit is what a list costs that is kept, without the network,
// where memory takes none of it.
func BenchmarkReferrersHit(b *testing.B) {
	for _, many := range []int{1, 10, 500, 10000} {
		for _, query := range []string{"", "?artifactType=application/vnd.example.1"} {
			b.Run(fmt.Sprint(many, query), func(b *testing.B) {
				ask := listHit(b, many, query)
				if w := ask(); w.status != http.StatusOK {
					b.Fatal(w.status)
				}
				b.ReportAllocs()
				for b.Loop() {
					ask()
				}
			})
		}
	}
}
