package proxy

import (
	"net/http"
	"strings"
	"testing"
)

func TestAcceptedTypes(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"none", nil, ""},
		{"an empty one", []string{""}, ""},
		{"one", []string{"application/vnd.oci.image.index.v1+json"}, "application/vnd.oci.image.index.v1+json"},
		{"two lines, in capitals, with parameters", []string{"b/Y;charset=utf-8, a/x", "a/x; q=0.5"}, "a/x b/y"},
		{"anything", []string{"a/x, */*"}, ""},
		{"anything of a kind", []string{"a/x", "application/*;q=0.1"}, ""},
		{"what is refused", []string{"a/x, b/y;q=0, c/z;q=0.000"}, "a/x"},
		{"what cannot be read", []string{"a/x, ???"}, ""},
		{"too many", []string{strings.Repeat("a/x,", maxAcceptedTypes+1)}, ""},
	} {
		if got := strings.Join(acceptedTypes(http.Header{"Accept": c.lines}), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
