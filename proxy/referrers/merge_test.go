package referrers

import (
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestMerge(t *testing.T) {
	derived := referrer("x", "application/vnd.dev.sigstore.bundle.v0.3+json")
	claimed := referrer("x", "application/vnd.oci.empty.v1+json")
	other := referrer("other", "")
	want := []Descriptor{derived, other}
	if other.Digest < derived.Digest {
		want = []Descriptor{other, derived}
	}
	t.Run("what is derived goes before what is claimed (W51)", func(t *testing.T) {
		if got := Merge([]Descriptor{derived}, []Descriptor{other, claimed, claimed}); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
	t.Run("the order is that of digests, whatever came first", func(t *testing.T) {
		if got := Merge([]Descriptor{other}, nil, []Descriptor{derived}); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
	t.Run("the lists stay as they are", func(t *testing.T) {
		list := []Descriptor{want[1], want[0]}
		Merge(list)
		if !reflect.DeepEqual(list, []Descriptor{want[1], want[0]}) {
			t.Fatalf("got %v", list)
		}
	})
}

func TestFilter(t *testing.T) {
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
			got := Filter(list, c.types)
			if len(got) != c.want {
				t.Fatalf("got %v, want %d", got, c.want)
			}
			if !slices.IsSorted(listed(got)) || !slices.Equal(given, c.types) {
				t.Fatalf("order or argument changed: %v, %v", got, c.types)
			}
		})
	}
}

func TestAfter(t *testing.T) {
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
			if got := After(c.list, c.last); !slices.Equal(listed(got), listed(c.want)) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}
}
