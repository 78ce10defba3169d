package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/proxy/retention"
)

// listing is a Cache of one image. A list of it fails after that, if it shall.
type listing struct {
	Cache
	err     error
	flushed *httptest.ResponseRecorder
	t       *testing.T
}

func (l listing) List(_ context.Context, each func(retention.Item) error) error {
	if err := each(retention.Item{Image: &retention.CachedImage{Repository: "app"}}); err != nil {
		return err
	}
	if !l.flushed.Flushed {
		l.t.Error("the first image waits for others")
	}
	if l.err != nil {
		return l.err
	}
	return each(retention.Item{Totals: &retention.Totals{Bytes: 7}})
}

func (l listing) Inventory(context.Context) (retention.Inventory, error) {
	return retention.Inventory{Images: []retention.CachedImage{{Repository: "app"}}, Totals: retention.Totals{Bytes: 7}}, nil
}

func TestACacheIsListedInLinesOrInOnePiece(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		accept, begins, ends, mediaType string
		err                             error
	}{
		"in lines":        {Lines + ", application/json", `{"image":{`, "}\n" + `{"totals":{"bytes":7,"strays":0,"records":0,"aside":0,"maxBytes":0}}` + "\n", Lines, nil},
		"it fails midway": {Lines, `{"image":{`, "}\n" + `{"error":"lost"}` + "\n", Lines, errors.New("lost")},
		"in one piece":    {"application/json", `{"images":[{`, `"bytes":7,"strays":0,"records":0,"aside":0,"maxBytes":0}` + "\n", "application/json", nil},
		"by an older one": {"", `{"images":[{`, `"bytes":7,"strays":0,"records":0,"aside":0,"maxBytes":0}` + "\n", "application/json", nil},
	} {
		w := httptest.NewRecorder()
		admin := New(Options{Metrics: m, Cache: listing{err: c.err, flushed: w, t: t}, Ready: func() error { return nil }})
		r := requestTo("127.0.0.1", http.MethodGet, "localhost", "/cache")
		r.Header.Set("Accept", c.accept)
		admin.ServeHTTP(w, r)
		if got := w.Body.String(); w.Code != 200 || w.Header().Get("Content-Type") != c.mediaType || !strings.HasPrefix(got, c.begins) || !strings.HasSuffix(got, c.ends) {
			t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), got)
		}
	}
}
