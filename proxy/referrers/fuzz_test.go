package referrers

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func FuzzDescribe(f *testing.F) {
	for _, s := range shapes {
		f.Add(s.mediaType, []byte(s.raw))
	}
	f.Add("", []byte(`{"manifests":[{"digest":1}],"subject":[]}`))
	f.Add(ociIndex, []byte(`{"manifests":[[[[]]]],"annotations":{"a":{}}}`))
	f.Fuzz(func(t *testing.T, mediaType string, raw []byte) {
		d, err := Describe(mediaType, Parse(raw))
		_, _, subject, namesErr := Names(mediaType, Parse(raw))
		if err != nil {
			return
		}
		if d.Descriptor.Digest != digest.FromBytes(raw) || d.Descriptor.Size != int64(len(raw)) || d.Descriptor.MediaType == "" {
			t.Fatalf("got %+v", d.Descriptor)
		}
		if d.Subject != nil && !wellFormed(d.Subject.Digest) {
			t.Fatalf("subject %q", d.Subject.Digest)
		}
		if namesErr == nil && !reflect.DeepEqual(subject, d.Subject) {
			t.Fatalf("Names has the subject %v, Describe %v", subject, d.Subject)
		}
		if _, err := NewList([]Descriptor{d.Descriptor}); err != nil {
			t.Fatal(err)
		}
		if d.Subject != nil {
			if _, err := Verify(mediaType, Parse(raw), d.Descriptor.Digest, d.Subject.Digest); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[{"mediaType":"` + ociManifest + `","digest":"` + one + `","size":1,"annotations":{"a":"b"}}]}`))
	f.Add([]byte(`{"manifests":null}`))
	f.Add([]byte(`{"manifests":[{"digest":"` + one + `","size":1e3,"platform":{"os.features":[1]}},{"digest":"blake3:x"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := Decode(Parse(raw))
		if err != nil {
			return
		}
		all := slices.DeleteFunc(Merge(list), func(d Descriptor) bool { return !Whole(d) })
		index := whole(t, all)
		again, err := Decode(Parse(index))
		if err != nil || len(again) != len(all) {
			t.Fatalf("%s: %d entries, %v, want %d", index, len(again), err, len(all))
		}
		if second := whole(t, again); string(second) != string(index) {
			t.Fatalf("%s\n%s", index, second)
		}
	})
}

func FuzzSubjectOf(f *testing.F) {
	f.Add("sha256-" + digest.FromString("a").Encoded())
	f.Add("sha384-" + digest.SHA384.FromString("a").Encoded())
	f.Add("sha512-" + strings.Repeat("0", 64))
	f.Add("sha256-")
	f.Add("-")
	f.Fuzz(func(t *testing.T, tag string) {
		subject, ok := SubjectOf(tag)
		if !ok {
			return
		}
		if subject.Validate() != nil || !slices.Contains(TagForms(subject), tag) {
			t.Fatalf("%q is said to list %q, which has %q", tag, subject, TagForms(subject))
		}
	})
}
