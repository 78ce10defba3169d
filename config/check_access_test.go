package config

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestATokenThatCanBeGuessedIsAMistake(t *testing.T) {
	for content, want := range map[string]string{
		"":         "is empty; write a token into it",
		" \n":      "is empty; write a token into it",
		"sesame\n": "holds less than 16 bytes, which can be guessed",
		strings.Repeat("a", 20) + " " + strings.Repeat("b", 20): "holds more than one word",
		"0123456789abcdef": "",
	} {
		clean(t)
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := Load(Options{File: write(t, "c.yaml", "admin_token_file: "+strconv.Quote(file)+"\n")})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

func TestExposureSaysWhoCanReadWhat(t *testing.T) {
	private := Upstream{Name: "corp.example.com", Credentials: Credentials{DockerConfig: true}}
	hub := Upstream{Name: "docker.io", Credentials: Credentials{Username: "me", PasswordFile: "secret"}}
	public := Upstream{Name: "quay.io"}
	const all, none = "0.0.0.0:5000", ""
	for name, c := range map[string]struct {
		upstreams []Upstream
		networks  []string
		listen    string
		want      string
	}{
		"no credentials":        {[]Upstream{public}, nil, all, none},
		"loopback":              {[]Upstream{private}, nil, "127.0.0.1:5000", none},
		"another of loopback's": {[]Upstream{private}, nil, "127.9.9.9:5000", none},
		"loopback of IPv6":      {[]Upstream{private}, nil, "[::1]:5000", none},
		"localhost":             {[]Upstream{private}, nil, "localhost:5000", none},
		"every address": {
			[]Upstream{private, public, hub}, nil, all,
			"whoever reaches 0.0.0.0:5000 can read all that the credentials for corp.example.com, docker.io can read: entrepot asks clients for no password; client_networks limits who is answered",
		},
		"every address, without a host": {
			[]Upstream{private}, nil, ":5000",
			"whoever reaches :5000 can read all that the credentials for corp.example.com can read: entrepot asks clients for no password; client_networks limits who is answered",
		},
		"some networks": {
			[]Upstream{private}, []string{"10.0.0.0/8", "fd00::/8"}, "[::]:5000",
			"whoever reaches [::]:5000 from 10.0.0.0/8, fd00::/8 can read all that the credentials for corp.example.com can read: entrepot asks clients for no password",
		},
		"many upstreams": {
			[]Upstream{private, private, private, private, hub, hub, hub}, nil, "192.0.2.1:80",
			"whoever reaches 192.0.2.1:80 can read all that the credentials for corp.example.com, corp.example.com, corp.example.com, corp.example.com, docker.io, 2 more can read: entrepot asks clients for no password; client_networks limits who is answered",
		},
	} {
		if got := (Config{Upstreams: c.upstreams, ClientNetworks: c.networks}).Exposure(c.listen); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}
