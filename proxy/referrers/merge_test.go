package referrers

import (
	"reflect"
	"testing"
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
