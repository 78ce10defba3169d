package referrers

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// newList encodes a list, and reads it as memory keeps it.
func newList(t testing.TB, all []Descriptor) List {
	t.Helper()
	l, err := NewList(all)
	if err != nil {
		t.Fatal(err)
	}
	return ListOf(slices.Clone(l.Bytes()))
}

// whole is the index that lists all.
func whole(t testing.TB, all []Descriptor) []byte {
	t.Helper()
	index, last := newList(t, all).Page("", nil, 1<<30)
	if last != "" {
		t.Fatalf("there is more after %s", last)
	}
	return index
}

// page decodes a page.
func page(t *testing.T, l List, after Digest, types []string, most int) (got []Descriptor, last Digest) {
	t.Helper()
	index, last := l.Page(after, types, most)
	got, err := Decode(Parse(index))
	if err != nil {
		t.Fatalf("%s: %v", index, err)
	}
	return got, last
}

func TestAListIsEncodedOnce(t *testing.T) {
	t.Run("no referrers are an empty list, never null (W52)", func(t *testing.T) {
		for _, list := range [][]Descriptor{nil, {}} {
			want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
			if got := whole(t, list); string(got) != want {
				t.Fatalf("got %s", got)
			}
			if l := newList(t, list); l.IsZero() || l.Len() != 0 || l.Lists(nil) {
				t.Fatalf("%+v", l)
			}
		}
	})
	t.Run("equal lists are equal bytes, and read back as they were (W57)", func(t *testing.T) {
		a := Merge([]Descriptor{referrer("x", "t/1"), referrer("y", "")}, []Descriptor{referrer("z", "t/2")})
		b := Merge([]Descriptor{referrer("z", "t/2")}, []Descriptor{referrer("y", ""), referrer("x", "t/1")})
		first, second := newList(t, a), newList(t, b)
		if string(first.Bytes()) != string(second.Bytes()) {
			t.Fatalf("%s\n%s", first.Bytes(), second.Bytes())
		}
		var index ocispec.Index
		if err := json.Unmarshal(whole(t, a), &index); err != nil || index.SchemaVersion != 2 || index.MediaType != ociIndex {
			t.Fatalf("%+v, %v", index, err)
		}
		back, err := first.Descriptors()
		if err != nil || !reflect.DeepEqual(back, a) || !reflect.DeepEqual(index.Manifests, a) || first.Len() != len(a) {
			t.Fatalf("got %v and %v, %v, want %v", back, index.Manifests, err, a)
		}
	})
	t.Run("an index shows no artifactType where there is none (W51)", func(t *testing.T) {
		if got := whole(t, []Descriptor{referrer("x", "")}); strings.Contains(string(got), "artifactType") {
			t.Fatalf("got %s", got)
		}
	})
	t.Run("a claim that no client could pull is an error", func(t *testing.T) {
		for _, d := range []Descriptor{
			{MediaType: ociManifest, Digest: digest.FromString("x"), Size: -1},
			{Digest: digest.FromString("x"), Size: 1},
			{MediaType: ociManifest, Size: 1},
		} {
			if got, err := NewList([]Descriptor{d}); err == nil {
				t.Errorf("%v: got %s", d, got.Bytes())
			}
		}
	})
}

func TestTenThousandReferrersArePagedBelowFourMebibytes(t *testing.T) {
	var list []Descriptor
	for i := range 10_000 {
		d := referrer(fmt.Sprint(i), "application/vnd.example")
		d.Annotations["c"] = strings.Repeat("x", 1000)
		list = append(list, d)
	}
	list = Merge(list)
	encoded := newList(t, list)
	var seen []Descriptor
	pages, last := 0, digest.Digest("")
	for pages == 0 || last != "" {
		index, next := encoded.Page(last, nil, MaxPage)
		if len(index) >= 4<<20 {
			t.Fatalf("page %d has %d bytes (W54)", pages, len(index))
		}
		got, err := Decode(Parse(index))
		if err != nil || len(got) == 0 || next != "" && next != got[len(got)-1].Digest {
			t.Fatalf("page %d: %d entries, %v, and more after %s", pages, len(got), err, next)
		}
		seen, last = append(seen, got...), next
		pages++
	}
	if pages < 3 || !reflect.DeepEqual(seen, list) {
		t.Fatalf("%d pages with %d referrers", pages, len(seen))
	}
}

func TestPage(t *testing.T) {
	list := Merge([]Descriptor{referrer("x", ""), referrer("y", "t/a"), referrer("z", "t/a")})
	all := len(whole(t, list))
	for _, c := range []struct {
		name  string
		bytes int
		want  int
	}{
		{"a page that just fits has all", all, 3},
		{"a byte less leaves the last for another", all - 1, 2},
		{"a referrer that fits nowhere comes alone", 1, 1},
	} {
		for _, types := range [][]string{nil, {"", "t/a"}} {
			t.Run(fmt.Sprint(c.name, types), func(t *testing.T) {
				of, most, want := list, c.bytes, c.want
				if types != nil { // of those alone
					of = slices.DeleteFunc(slices.Clone(list), func(d Descriptor) bool { return d.ArtifactType == "" })
					if most, want = len(whole(t, of))-all+c.bytes, max(c.want-1, 1); c.bytes == 1 {
						most = 1
					}
				}
				got, last := page(t, newList(t, list), "", types, most)
				if !reflect.DeepEqual(got, of[:want]) || (last != "") != (want < len(of)) || last != "" && last != of[want-1].Digest {
					t.Fatalf("got %v, and more after %q, want %d", got, last, want)
				}
			})
		}
	}
}

func TestAFilteredPage(t *testing.T) {
	list := Merge([]Descriptor{referrer("1", "t/a"), referrer("2", "t/b"), referrer("3", "t/a"), referrer("4", "")})
	for _, c := range []struct {
		name  string
		types []string
		want  int
	}{
		{"no type asks for all", nil, 4},
		{"an empty type asks for all", []string{""}, 4},
		{"one type", []string{"t/a"}, 2},
		{"repeated types mean any of them (W53)", []string{"t/b", "t/a"}, 3},
		{"an empty type beside another asks for nothing of its own", []string{"", "t/b"}, 1},
		{"types match as a whole", []string{"t/"}, 0},
		{"a type that nothing has", []string{"t/c"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			given := slices.Clone(c.types)
			l := newList(t, list)
			got, last := page(t, l, "", c.types, MaxPage)
			if len(got) != c.want || last != "" || l.Lists(c.types) != (c.want > 0) {
				t.Fatalf("got %v, and more after %q, want %d", got, last, c.want)
			}
			if !slices.IsSorted(listed(got)) || !slices.Equal(given, c.types) {
				t.Fatalf("order or argument changed: %v, %v", got, c.types)
			}
		})
	}
}

func TestAPageBeginsAfterADigest(t *testing.T) {
	list := Merge([]Descriptor{referrer("1", ""), referrer("2", ""), referrer("3", "")})
	without := slices.Delete(slices.Clone(list), 1, 2)
	for _, c := range []struct {
		name string
		list []Descriptor
		last digest.Digest
		want []Descriptor
	}{
		{"nothing begins at the start", list, "", list},
		{"a digest begins behind it", list, list[1].Digest, list[2:]},
		{"the last one leaves nothing", list, list[2].Digest, list[3:]},
		{"a digest that has gone still marks its place", without, list[1].Digest, without[1:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, last := page(t, newList(t, c.list), c.last, nil, MaxPage); !slices.Equal(listed(got), listed(c.want)) || last != "" {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}
}

// What a client is sent of a list is cut from it: all of it as it is, a page in
// one piece.
func TestAPageIsMadeInOnePiece(t *testing.T) {
	var all []Descriptor
	for i := range 1000 {
		d := referrer(fmt.Sprint(i), fmt.Sprint("application/vnd.example.", i%10))
		d.Size = int64(i)
		all = append(all, d)
	}
	l := newList(t, Merge(all))
	for name, c := range map[string]struct {
		types  []string
		most   int
		listed int
		allocs float64
	}{
		"all":             {nil, MaxPage, 1000, 0},
		"the first page":  {nil, 10 << 10, 0, 40}, // the digest is read after which the next begins
		"of a type":       {[]string{"application/vnd.example.3"}, MaxPage, 100, 5},
		"of no such type": {[]string{"application/vnd.example.none"}, MaxPage, 0, 5},
	} {
		index, _ := l.Page("", c.types, c.most)
		if name != "the first page" {
			if got, _ := page(t, l, "", c.types, c.most); len(got) != c.listed {
				t.Errorf("%s: %d are listed", name, len(got))
			}
		} else if len(index) > c.most || len(index) < c.most/2 {
			t.Errorf("%s: %d bytes", name, len(index))
		}
		if c.types != nil && cap(index) > 2*len(index)+1024 {
			t.Errorf("%s: %d bytes are made for %d", name, cap(index), len(index))
		}
		if n := testing.AllocsPerRun(20, func() { l.Page("", c.types, c.most) }); n > c.allocs {
			t.Errorf("%s: %.0f allocations, want %.0f", name, n, c.allocs)
		}
	}
}
