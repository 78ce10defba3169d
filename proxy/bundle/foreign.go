package bundle

import "strings"

// foreignImage is an entry of another tool's index. Its name may be a full one,
// only a tag, or nothing.
func foreignImage(name string, d Descriptor) Image {
	i := Image{Manifest: Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}}
	host, rest, ok := strings.Cut(name, "/")
	if !ok {
		i.Tag = name
		return i
	}
	i.Upstream, i.Repository = host, rest
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		i.Repository, i.Tag = rest[:colon], rest[colon+1:]
	}
	return i
}
