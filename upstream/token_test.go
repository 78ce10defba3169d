package upstream

import (
	"testing"
	"time"
)

func TestParseToken(t *testing.T) {
	for body, want := range map[string]struct {
		value string
		life  time.Duration
	}{
		`{"token":"x","expires_in":300}`:             {"x", 300 * time.Second},
		`{"token":"x","expires_in":"300"}`:           {"x", 300 * time.Second},
		`{"token":"x","expires_in":300.0}`:           {"x", 300 * time.Second},
		`{"token":"x","expires_in":null}`:            {"x", defaultToken},
		`{"token":"x","expires_in":""}`:              {"x", defaultToken},
		`{"token":"x","expires_in":[1]}`:             {"x", defaultToken},
		`{"token":"x","expires_in":-5}`:              {"x", defaultToken},
		`{"token":"x","expires_in":0}`:               {"x", defaultToken},
		`{"token":"x","expires_in":1e400}`:           {"x", longestToken},
		`{"token":"x","expires_in":99999999999999}`:  {"x", longestToken},
		`{"access_token":"x"}`:                       {"x", defaultToken},
		"\xef\xbb\xbf" + `{"token":"x"}`:             {"x", defaultToken},
		`{"token":"x","access_token":"y","other":1}`: {"x", defaultToken},
	} {
		if value, life, err := parseToken([]byte(body)); err != nil || value != want.value || life != want.life {
			t.Errorf("%s: %q for %s, %v", body, value, life, err)
		}
	}
	for _, body := range []string{``, `{}`, `[]`, `<html>`, `{"token":""}`, `{"token":"a\nb"}`, `null`} {
		if value, _, err := parseToken([]byte(body)); err == nil {
			t.Errorf("%s: %q", body, value)
		}
	}
}

func FuzzToken(f *testing.F) {
	for _, seed := range []string{`{"token":"x","expires_in":300}`, `{"token":"x","expires_in":"1e9999"}`, "\xef\xbb\xbf{}", `{"access_token":"x","expires_in":-0.5}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if value, life, err := parseToken(body); err == nil && (value == "" || life <= 0 || life > longestToken) {
			t.Errorf("%q: %q for %s", body, value, life)
		}
	})
}
