package e2e

import (
	"syscall"
	"testing"

	stargz "github.com/containerd/stargz-snapshotter/fs/remote"
)

func TestAClientThatReadsInPiecesPullsThroughTheMirror(t *testing.T) {
	s := readSuite(t)
	registry := s.startDistribution(t, s.folder(t))
	lives := []func(t *testing.T) pieceLife{
		func(t *testing.T) pieceLife {
			blob := s.pushTar(t, registry.host, "library/concurrent", 128<<20)
			return pieceLife{
				pieceLimit: pieceLimit{note: "F3", name: "containerd " + s.version(t, "containerd") + " with concurrent_layer_fetch_buffer", most: 1.02},
				blob:       blob, start: concurrentContainerd(blob),
			}
		},
		func(t *testing.T) pieceLife {
			layer := s.pushStargz(t, registry.host, "library/stargz-look", 100)
			return pieceLife{
				pieceLimit: pieceLimit{note: "F5", name: "stargz-snapshotter " + s.version(t, "github.com/containerd/stargz-snapshotter") + ", some files", most: 1.25, look: true},
				blob:       layer.knownBlob, unasked: span{12e6, 13e6},
				start: layer.reads(func(blob stargz.Blob) error { return layer.looks(blob, 0, 1, 2, 50, 51, 90) }),
			}
		},
		func(t *testing.T) pieceLife {
			layer := s.pushStargz(t, registry.host, "library/stargz-all", 220)
			return pieceLife{
				pieceLimit: pieceLimit{note: "F5", name: "stargz-snapshotter " + s.version(t, "github.com/containerd/stargz-snapshotter") + ", every other chunk and then the holes", most: 1.02},
				blob:       layer.knownBlob, start: layer.reads(layer.scattered),
			}
		},
		func(t *testing.T) pieceLife {
			images := s.pushUpdated(t, registry.host)
			return pieceLife{
				pieceLimit: pieceLimit{note: "F4", name: "Podman " + s.version(t, "podman") + " with enable_partial_images, an update", most: 1.25, look: true},
				blob:       images.newer, itself: true, unasked: unreadFile, start: partialPodman(images),
			}
		},
	}
	page := &piecesPage{}
	t.Run("clients", func(t *testing.T) {
		for _, made := range lives {
			life := made(t)
			life.registry = reverseProxy(registry.host)
			page.order = append(page.order, life.name)
			t.Run(life.note+" "+life.name, func(t *testing.T) {
				t.Parallel()
				page.add(s.readInPieces(t, life))
			})
		}
	})
	registry.process.end(t, syscall.SIGTERM)
	put(t, "pieces by clients", `### By the clients themselves

The same of programs and libraries: containerd pulls by its transfer service. The stargz snapshotter's library reads files of an eStargz layer as the
snapshotter does for a container that starts, without FUSE, and then brings what is left in the background: there are more holes than
a request may have ranges. Podman has an image of a zstd:chunked layer, and pulls one of which a third of the files is new; only what it
asks of that layer is counted.

`+page.String())
}
