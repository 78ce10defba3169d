package config

import "testing"

func TestAVirtualHostIsFoundByAnyAddressThatMeansIt(t *testing.T) {
	cfg := Config{Upstreams: []Upstream{
		{Name: "docker.io", Hosts: []string{"mirror.lan"}},
		{Name: "ghcr.io", Hosts: []string{"ghcr.lan", "[fd00::1]", "192.0.2.1"}},
	}}
	for host, want := range map[string]string{
		"mirror.lan": "docker.io", "mirror.lan:5000": "docker.io", "MIRROR.lan.:443": "docker.io", "ghcr.lan": "ghcr.io",
		"[fd00::1]:5000": "ghcr.io", "[fd00:0::1]": "ghcr.io", "fd00::1": "ghcr.io", "192.0.2.1:80": "ghcr.io",
		"other.lan": "", "lan": "", "": "", ":5000": "", "192.0.2.2": "",
	} {
		if got, ok := cfg.VirtualHost(host); got != want || ok != (want != "") {
			t.Errorf("%q is a virtual host of %q, %t, want %q", host, got, ok, want)
		}
	}
}

func TestAVirtualHostBesideTheListenAddressIsFine(t *testing.T) {
	clean(t)
	for _, listen := range []string{"127.0.0.1:5000", ":5000", "0.0.0.0:5000", "mirror.lan:5000"} {
		content := "listen: \"" + listen + "\"\nupstreams: [{name: a.b, hosts: [a.mirror.lan]}]\n"
		if _, _, err := Load(Options{File: write(t, "c.yaml", content)}); err != nil {
			t.Errorf("%s: %v", listen, err)
		}
	}
}
