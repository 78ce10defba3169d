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
	}
	page := &piecesPage{}
	var names []string
	t.Run("clients", func(t *testing.T) {
		for _, made := range lives {
			life := made(t)
			life.registry = reverseProxy(registry.host)
			names = append(names, life.name)
			t.Run(life.note+" "+life.name, func(t *testing.T) {
				t.Parallel()
				page.add(s.readInPieces(t, life))
			})
		}
	})
	registry.process.end(t, syscall.SIGTERM)
	_ = names
}
