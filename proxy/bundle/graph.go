package bundle

import "errors"

// Names are what a manifest names.
type Names struct {
	Manifests, Blobs []Descriptor
}

// Part is a manifest or a blob that an image needs.
type Part struct {
	Descriptor
	Of         Digest // the manifest that names it, or the subject; empty for the image itself
	IsManifest bool
	// LeftOut says that what this manifest names is missing on purpose.
	LeftOut bool
}

// ErrSkip says that what a manifest names is not looked at.
var ErrSkip = errors.New("not looked at")

// Graph are contents whose answers can be found.
type Graph struct {
	answers map[string]Answer // by repository and subject
}

// Graph returns the contents as a graph.
func (c *Contents) Graph() Graph {
	g := Graph{answers: make(map[string]Answer, len(c.Referrers))}
	for _, a := range c.Referrers {
		g.answers[answerKey(a.Upstream, a.Repository, a.Subject)] = a
	}
	return g
}

// Answer returns what is known of the referrers of a manifest of an image.
func (g Graph) Answer(image Image, subject Digest) (Answer, bool) {
	a, ok := g.answers[answerKey(image.Upstream, image.Repository, subject)]
	return a, ok
}

func answerKey(upstream, repository string, subject Digest) string {
	return upstream + "\x00" + repository + "\x00" + subject.String()
}

// Walk visits what an image needs, each manifest and blob once: a manifest comes
// before what it names, and then what refers to it. visit returns what a manifest
// names, and ErrSkip if that is not to be visited; of blobs that is ignored.
func (g Graph) Walk(image Image, visit func(Part) (Names, error)) error {
	leftOut := make(map[Digest]bool, len(image.LeftOut))
	for _, d := range image.LeftOut {
		leftOut[d] = true
	}
	seen := map[Digest]bool{image.Manifest.Digest: true}
	queue := []Part{{Descriptor: image.Manifest, IsManifest: true}}
	for ; len(queue) > 0; queue = queue[1:] {
		part := queue[0]
		part.LeftOut = leftOut[part.Digest]
		names, err := visit(part)
		if errors.Is(err, ErrSkip) {
			continue
		}
		if err != nil {
			return err
		}
		if part.LeftOut {
			continue
		}
		for _, d := range names.Blobs {
			if len(d.URLs) > 0 || seen[d.Digest] {
				continue // clients fetch those with URLs from elsewhere (W9)
			}
			seen[d.Digest] = true
			if _, err := visit(Part{Descriptor: d, Of: part.Digest}); err != nil && !errors.Is(err, ErrSkip) {
				return err
			}
		}
		follow := names.Manifests
		if image.Referrers {
			follow = append(follow[:len(follow):len(follow)], g.answers[answerKey(image.Upstream, image.Repository, part.Digest)].Manifests...)
		}
		for _, d := range follow {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				queue = append(queue, Part{Descriptor: d, Of: part.Digest, IsManifest: true})
			}
		}
	}
	return nil
}
