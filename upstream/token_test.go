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
		`{"token":"x","expires_in":null}`:            {"x", defaultTokenLife},
		`{"token":"x","expires_in":""}`:              {"x", defaultTokenLife},
		`{"token":"x","expires_in":[1]}`:             {"x", defaultTokenLife},
		`{"token":"x","expires_in":-5}`:              {"x", defaultTokenLife},
		`{"token":"x","expires_in":0}`:               {"x", defaultTokenLife},
		`{"token":"x","expires_in":1e400}`:           {"x", maxTokenLife},
		`{"token":"x","expires_in":99999999999999}`:  {"x", maxTokenLife},
		`{"access_token":"x"}`:                       {"x", defaultTokenLife},
		"\xef\xbb\xbf" + `{"token":"x"}`:             {"x", defaultTokenLife},
		`{"token":"x","access_token":"y","other":1}`: {"x", defaultTokenLife},
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
		if value, life, err := parseToken(body); err == nil && (value == "" || life <= 0 || life > maxTokenLife) {
			t.Errorf("%q: %q for %s", body, value, life)
		}
	})
}
