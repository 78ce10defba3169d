package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestWhatIsHeldIsBoundedInBytes(t *testing.T) {
	s := newSized(3, 100, func(v string) int { return len(v) })
	value := func(n int) string { return strings.Repeat("x", n) }
	for _, step := range []struct {
		key  string
		size int
		want string // the keys that are there then
	}{
		{"a", 40, "a"}, {"b", 40, "ab"}, {"a", 10, "ab"}, {"c", 30, "abc"}, {"d", 10, "acd"}, {"e", 98, "e"}, {"f", 100, ""}, {"g", 1, "g"},
	} {
		s.Add(step.key, value(step.size))
		got, bytes := "", 0
		for _, key := range "abcdefg" {
			if v, ok := s.lru.Peek(string(key)); ok {
				got, bytes = got+string(key), bytes+1+len(v)
			}
		}
		if got != step.want || s.bytes != bytes {
			t.Errorf("after %d bytes of %s: %q, %d bytes counted, want %q, %d", step.size, step.key, got, s.bytes, step.want, bytes)
		}
	}
	if s.Remove("g"); s.bytes != 0 {
		t.Errorf("%d bytes of nothing", s.bytes)
	}
}

func TestChallengesOfManyWordsAreNotAllHeld(t *testing.T) {
	r, err := NewRemote(RemoteOptions{Name: "hub.test", Endpoint: "http://hub.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const words = 30 << 10
	for i := range 100 {
		challenge := fmt.Sprintf(`Bearer realm="http://hub.test/token",service=%q`, strings.Repeat("s", words))
		repo := fmt.Sprint("app", i)
		if _, err := r.home.learnAuth(repo, &http.Response{Header: http.Header{"Www-Authenticate": {challenge}}, Body: http.NoBody}); err != nil {
			t.Fatal(err)
		}
		if _, own := r.home.expectedAuth(repo); !own {
			t.Fatalf("what is asked for %s is not held", repo)
		}
	}
	if _, own := r.home.expectedAuth("app0"); own || r.home.auth.bytes > maxAuthBytes {
		t.Errorf("%d bytes of challenges are held, that of the first repository among them: %v", r.home.auth.bytes, own)
	}
}
