package bundle_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/bundle"
)

func TestWhatTheOtherSideHasIsReadFromThreeKindsOfFiles(t *testing.T) {
	s := smallSet()
	assumed := digest.FromString("assumed")
	s.contents.Assumed = []bundle.Content{{Digest: assumed, Size: 7}}
	file := s.write(t)
	own := membersOf(t, file)[3]
	if own.Name != "entrepot.json" {
		t.Fatal(own.Name)
	}
	list := "# a comment\n\n" + assumed.String() + "\n"
	for _, c := range s.contents.Content {
		list += c.Digest.String() + "\n"
	}
	for name, text := range map[string]string{"a bundle": string(file), "its JSON": string(own.content), "a list": list} {
		have, err := bundle.ReadHave(strings.NewReader(text))
		if err != nil || len(have) != len(s.contents.Content)+1 || !have[assumed] || !have[s.contents.Content[0].Digest] {
			t.Errorf("%s: %d digests, %v", name, len(have), err)
		}
	}
	for name, text := range map[string]string{"text": "hello", "a digest that is none": "sha256:12\n", "a cut bundle": string(file[:2000])} {
		if have, err := bundle.ReadHave(bytes.NewReader([]byte(text))); err == nil {
			t.Errorf("%s: %v", name, have)
		}
	}
	if have, err := bundle.ReadHave(strings.NewReader("")); err != nil || len(have) != 0 {
		t.Errorf("an empty cache: %v, %v", have, err)
	}
}
