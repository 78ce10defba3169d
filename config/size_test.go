package config

import "testing"

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": {}, "1": {Bytes: 1}, "1048576": {Bytes: 1 << 20}, "1B": {Bytes: 1},
		"1kB": {Bytes: 1000}, "1KB": {Bytes: 1000}, "1KiB": {Bytes: 1024}, "2MB": {Bytes: 2e6}, "2mib": {Bytes: 2 << 20},
		"50GiB": {Bytes: 50 << 30}, "50 GiB": {Bytes: 50 << 30}, "1.5GB": {Bytes: 1_500_000_000}, "0.5KiB": {Bytes: 512},
		"3TiB": {Bytes: 3 << 40}, "4TB": {Bytes: 4e12}, "9007199254740993": {Bytes: 9007199254740993},
		"80%": {Percent: 80}, "1%": {Percent: 1}, "100%": {Percent: 100},
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
		again, err := ParseSize(got.String())
		if err != nil || again != want {
			t.Errorf("%s, written as %s: got %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", " ", "GiB", "%", "-1", "1e999", "0x10", "1_000", "NaN", "Inf", "0%", "101%", "1.5%", "9223372036854775808", "8388608TiB", "1XB", "1 G"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestSizeOfAFileSystem(t *testing.T) {
	for _, c := range []struct {
		size        Size
		total, want int64
	}{
		{Size{Bytes: 7}, 1000, 7},
		{Size{Percent: 80}, 1000, 800},
		{Size{Percent: 50}, 3, 1},
		{Size{Percent: 100}, 1<<63 - 1, 1<<63 - 1},
	} {
		if got := c.size.Of(c.total); got != c.want {
			t.Errorf("%s of %d: got %d, want %d", c.size, c.total, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"containerd", "docker", "crio", "podman", "max_size", "max_wait"}
	for word, want := range map[string]string{
		"contianerd": "containerd", "Docker": "docker", "cri-o": "crio", "pod": "podman", "size": "max_size",
		"maxsize": "max_size", "kubelet": "", "x": "", "": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}
