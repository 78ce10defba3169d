package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var volumeKinds = []kind{
	{name: "Docker's volumes", client: "Docker", tool: "docker", push: pushVolume, take: restoreVolume},
}

// volumeFile is a file in a volume, or a link.
type volumeFile struct {
	mode    fs.FileMode
	owner   int
	content string // of a link, where it leads
}

var volume = map[string]volumeFile{
	"empty":                {0o600, 999, ""},
	"base/16384/2619":      {0o640, 999, noise("a table", 1<<20)},
	"base/16384/an \u00e9": {0o644, 0, "a name that is not ASCII"},
	"bin/backup":           {0o755, 0, "#!/bin/sh\n"},
	"log/1":                {0o640, 999, strings.Repeat("\x00\xff", 4096)},
	"log/current":          {0o777 | fs.ModeSymlink, 999, "1"},
}

// pushVolume pushes an image that holds nothing but a volume's files.
func pushVolume(e *errand) error {
	files := layer(e.t, func(w *tar.Writer) error {
		for name, file := range volume {
			header := &tar.Header{Name: "volume/" + name, Mode: int64(file.mode.Perm()), Uid: file.owner, Gid: file.owner, ModTime: built}
			if file.mode.IsRegular() {
				header.Size = int64(len(file.content))
			} else {
				header.Typeflag, header.Linkname = tar.TypeSymlink, file.content
			}
			if err := w.WriteHeader(header); err != nil {
				return err
			}
			if _, err := io.WriteString(w, file.content[:header.Size]); err != nil {
				return err
			}
		}
		return nil
	})
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), files)
	if err != nil {
		return err
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: configFile(e.t, img).RootFS})
	if err != nil {
		return err
	}
	_, err = e.pushAs("volumes/database", "1", img)
	return err
}

// restoreVolume has a Docker that holds nothing fill a volume from the image,
// through registry-mirrors.
func restoreVolume(e *errand) (err error) {
	// A test of its own, so that Docker is gone after it with all it holds.
	passed := e.t.Run("docker", func(t *testing.T) {
		d, _ := e.suite.startDocker(t, e.mirror).(*docker)
		d.docker(t, "pull", "volumes/database:1")
		d.docker(t, "create", "--volume", "restored:/volume", "volumes/database:1", "nothing to run")
		err = sameVolume(strings.TrimSpace(d.docker(t, "volume", "inspect", "--format", "{{.Mountpoint}}", "restored")))
	})
	if !passed {
		return errors.New("docker does not restore the volume")
	}
	return err
}

// sameVolume fails where a folder has anything but the volume's files, or has
// them otherwise.
func sameVolume(folder string) error {
	found := map[string]volumeFile{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		found[name], err = readVolumeFile(path)
		return err
	})
	for name := range found {
		if _, ok := volume[name]; !ok {
			err = errors.Join(err, fmt.Errorf("%s was not in the volume", name))
		}
	}
	for name, want := range volume {
		if got := found[name]; got != want {
			err = errors.Join(err, fmt.Errorf("%s is %s of %d with %d bytes, want %s of %d with %d bytes, the same",
				name, got.mode, got.owner, len(got.content), want.mode, want.owner, len(want.content)))
		}
	}
	return err
}

func readVolumeFile(path string) (volumeFile, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return volumeFile{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return volumeFile{}, fmt.Errorf("nobody knows the owner of %s", path)
	}
	file := volumeFile{mode: info.Mode(), owner: int(stat.Uid)}
	if info.Mode().IsRegular() {
		content, err := os.ReadFile(path)
		file.content = string(content)
		return file, err
	}
	file.content, err = os.Readlink(path)
	return file, err
}
