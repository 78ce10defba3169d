package admission

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestOperators(t *testing.T) {
	const token = "0123456789abcdef"
	dir := t.TempDir()
	file := func(name, content string) Operators {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return Operators{TokenFile: path}
	}
	withToken, empty := file("token", token+"\n"), file("empty", "\n")
	unix := from("@")
	unix = unix.WithContext(context.WithValue(unix.Context(), http.LocalAddrContextKey, &net.UnixAddr{Name: "/run/admin.sock", Net: "unix"}))
	const elsewhere, bearer = "192.0.2.1:1", "Bearer "
	for name, c := range map[string]struct {
		of   Operators
		r    *http.Request
		want error
	}{
		"over loopback":                         {Operators{}, from("127.0.0.1:1"), nil},
		"over loopback of IPv6":                 {Operators{}, from("[::1]:1"), nil},
		"over loopback on a socket of IPv6":     {Operators{}, from("[::ffff:127.0.0.1]:1"), nil},
		"over a Unix socket":                    {Operators{}, unix, nil},
		"over loopback, where there is a token": {withToken, from("127.0.0.1:1"), nil},
		"over loopback, by a reverse proxy":     {Operators{}, from("127.0.0.1:1", "X-Forwarded-For", "192.0.2.1"), ErrNotLocal},
		"by another reverse proxy":              {Operators{}, from("[::1]:1", "Forwarded", "for=127.0.0.1"), ErrNotLocal},
		"by a reverse proxy, with the token":    {withToken, from("127.0.0.1:1", "Via", "1.1 x", "Authorization", bearer+token), nil},
		"from elsewhere":                        {Operators{}, from(elsewhere), ErrNotLocal},
		"from elsewhere, claiming loopback":     {Operators{}, from(elsewhere, "X-Forwarded-For", "127.0.0.1"), ErrNotLocal},
		"from elsewhere, without the token":     {withToken, from(elsewhere), ErrNotLocal},
		"with the token":                        {withToken, from(elsewhere, "Authorization", bearer+token), nil},
		"with another token":                    {withToken, from(elsewhere, "Authorization", bearer+"0123456789abcdeg"), ErrToken},
		"with the beginning of the token":       {withToken, from(elsewhere, "Authorization", bearer+token[:8]), ErrToken},
		"with an empty token":                   {withToken, from(elsewhere, "Authorization", bearer), ErrToken},
		"with a password":                       {withToken, from(elsewhere, "Authorization", "Basic "+token), ErrNotLocal},
		"with a token where none is configured": {Operators{}, from(elsewhere, "Authorization", bearer), ErrNotLocal},
		"with an empty token of an empty file":  {empty, from(elsewhere, "Authorization", bearer), ErrTokenFile},
		"with a token whose file is gone":       {Operators{TokenFile: filepath.Join(dir, "none")}, from(elsewhere, "Authorization", bearer+token), ErrTokenFile},
		"from where nobody knows":               {Operators{}, from("@"), ErrNotLocal},
	} {
		if got := c.of.Check(c.r); !errors.Is(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	file("token", "another-token-of-32-bytes-length")
	if err := withToken.Check(from(elsewhere, "Authorization", bearer+token)); !errors.Is(err, ErrToken) {
		t.Errorf("after the token was replaced: %v", err)
	}
}
