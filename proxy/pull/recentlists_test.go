package pull

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// What memory did not take is bounded in bytes.
func TestTheListsThatMemoryDidNotTakeAreBounded(t *testing.T) {
	listOf := func(name string, size int) (Digest, referrers.List) {
		one := Descriptor{MediaType: "application/vnd.example", Digest: digest.FromString(name), Annotations: map[string]string{"a": strings.Repeat("x", size)}}
		l, err := referrers.NewList([]Descriptor{one})
		if err != nil {
			t.Fatal(err)
		}
		return digest.FromBytes(l.Bytes()), l
	}
	r := newRecentLists()
	for i := range 20 {
		d, l := listOf(fmt.Sprint(i), 1<<20)
		r.put(d, l)
		r.put(d, l) // it is counted once
		if _, ok := r.get(d); !ok {
			t.Errorf("the list that was sent last is dropped")
		}
	}
	if n := r.lists.Len(); n != maxRecent>>20-1 || r.bytes > maxRecent || r.bytes < maxRecent-2<<20 {
		t.Errorf("%d are held, of %d bytes", n, r.bytes)
	}
	large, l := listOf("large", maxRecent)
	r.put(large, l)
	if _, ok := r.get(large); !ok || r.lists.Len() != 1 || r.bytes != len(l.Bytes()) {
		t.Errorf("%d are held, of %d bytes: the one that is larger than all may be, %t", r.lists.Len(), r.bytes, ok)
	}
	for i := range 2 * maxRecentLists {
		d, l := listOf(fmt.Sprint("small", i), 1)
		r.put(d, l)
	}
	if n := r.lists.Len(); n != maxRecentLists {
		t.Errorf("%d are held", n)
	}
}
