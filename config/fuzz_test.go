package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad gives any content in any of the formats. Whatever is accepted must
// be read the same when it is written back.
func FuzzLoad(f *testing.F) {
	f.Add("c.yaml", designExample)
	f.Add("c.yaml", everyKey)
	f.Add("c.yaml", "a: &a [*a]\n")
	f.Add("c.yaml", "? [x]\n: y\n<<: {listen: z}\n")
	f.Add("c.json", "{\"upstreams\": [null, {}, [], {\"name\": \"a.b\", \"allow\": [null]}]}")
	f.Add("c.toml", "[[upstreams]]\nname = 'a.b'\n[upstreams.tls]\nca_file = ''\n[[upstreams]]\ntls.ca_file = \"\"\n")
	f.Add("c.toml", "upstreams = [{name = 'a.b'}, 1, [2]]\n[cache]\n'max_size' = 1_0\n")
	f.Add("c.toml", "listen = {}\n[log]\nlevel.x = 1\n")
	f.Fuzz(func(t *testing.T, name, content string) {
		switch filepath.Ext(name) {
		case ".yaml", ".json", ".toml":
		default:
			return
		}
		cfg, ok := loadContent(t, name, content)
		if !ok {
			return
		}
		var b strings.Builder
		if err := WriteYAML(&b, cfg, Origins{}); err != nil {
			t.Fatal(err)
		}
		again, ok := loadContent(t, "again.yaml", b.String())
		if !ok {
			t.Fatalf("not read again:\n%s", b.String())
		}
		if got, want := strings.Join(flat(again), "\n"), strings.Join(flat(cfg), "\n"); got != want {
			t.Errorf("read again, it is\n%s\nnot\n%s", got, want)
		}
	})
}

func loadContent(t *testing.T, name, content string) (Config, bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c"+filepath.Ext(name))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := Load(Options{File: file})
	var mistakes Mistakes
	if err != nil && !errors.As(err, &mistakes) {
		t.Fatalf("got %T: %v", err, err)
	}
	if err != nil && !reflect.DeepEqual(cfg, Config{}) {
		t.Error("a configuration came with its mistakes")
	}
	for _, m := range mistakes {
		if m.Problem == "" || strings.Contains(m.Error(), "\n") {
			t.Errorf("mistake %+v", m)
		}
	}
	return cfg, err == nil
}
