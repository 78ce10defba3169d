package e2e

import (
	"archive/tar"
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// rowRuntime is a runtime as a row of README's table has it. To add one: a file
// that is named for it, with its rowRuntime in rowRuntimes.
type rowRuntime struct {
	name string
	// tool is the installed client; tools are all whose programs are in the path,
	// first what comes first.
	tool  string
	tools []string
	// row is how the row begins in README, whose second column is typed.
	row string
	// folders are those below which files are written. Once removed, all that is
	// in them has to be as it was.
	folders []string
	// shipped are the configurations that the runtime comes with, most common
	// first: each puts its files there. The first is the one of all stories but
	// "as typed".
	shipped []shipped
	// keep puts files there that a user could have, and says what they mean.
	keep func(*machine) []meaning
	// older puts files there that ours can't stand beside, so that they move, and
	// says who is asked for docker.io with them. It may be nil.
	older func(*machine) (what, asked string)
	// start starts the runtime's daemon, if it has one.
	start func(*machine) rowClient
	// refused are the words in which the program refuses to write, by column.
	refused map[string]string
	// told is what --check is told, where nothing that is installed says it.
	told []string
	// stories are told of it in place of those of all, where it is led in a way of
	// its own.
	stories []story
}

func (r rowRuntime) all() []story {
	if r.stories != nil {
		return r.stories
	}
	return stories
}

// shipped is a configuration that a runtime comes with.
type shipped struct {
	name string
	put  func(*machine)
}

// rowClient is a runtime that runs on the machine.
type rowClient interface {
	// pull pulls an image by the name that a user types.
	pull(ctx context.Context, ref string) error
	// restart does what "entrepot hosts" says is to be done after a change.
	restart(said string)
	stop()
}

// meaning is what a user's own files mean of a registry: with entrepot running
// and with it down, who is asked. It is "here", the name of a registry, or
// nobody.
type meaning struct{ registry, up, down string }

const nobody = "nobody"

// rowRuntimes are in the order of README's table.
var rowRuntimes = slices.Concat(
	containerdRows("containerd", "2", containerdsOwn("containerd")),
	containerdRows("containerd16", "1.6", debiansContainerd, containerdsOwn("containerd16")),
	[]rowRuntime{dockerTwenty, dockerNewest},
	containersRows,
	[]rowRuntime{buildkitRow, homebrewRow},
)

// readme is the runtime's row, column by column.
func (r rowRuntime) readme(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "| "+r.row) {
			return strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		}
	}
	t.Fatalf("README has no row that begins with %q", r.row)
	return nil
}

var code = regexp.MustCompile("`([^`]+)`")

// command is what the row says to type in a column, after the first of its words.
func (r rowRuntime) command(t *testing.T, column int, word string) string {
	t.Helper()
	for _, found := range code.FindAllStringSubmatch(r.readme(t)[column], -1) {
		if strings.HasPrefix(found[1], word) {
			return found[1]
		}
	}
	t.Fatalf("README's row %q does not say to type %q…", r.row, word)
	return ""
}

// hosts is the command that points the runtime here, and undoes that with
// another flag in place of --write.
func (r rowRuntime) hosts(t *testing.T, more ...string) string {
	t.Helper()
	return strings.Join(append([]string{r.command(t, 1, "entrepot hosts ")}, more...), " ")
}

func (r rowRuntime) instead(t *testing.T, flag string, more ...string) string {
	t.Helper()
	return strings.Replace(r.hosts(t, more...), "--write", flag, 1)
}

// fresh pushes an image that nobody has seen, and names it as one of a registry.
func (m *machine) fresh(registry string) string {
	m.t.Helper()
	m.pushed++
	repository, tag := "team/row", strconv.Itoa(m.pushed)
	if registry == "docker.io" || registry == "hub.lan" {
		repository = "library/row"
	}
	files := layer(m.t, func(w *tar.Writer) error {
		return w.WriteHeader(&tar.Header{Name: "of/" + repository + "/" + tag + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: built})
	})
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, files)
	if err != nil {
		m.t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: configFile(m.t, img).RootFS})
	if err != nil {
		m.t.Fatal(err)
	}
	m.latest = img
	return registry + "/" + m.push(repository, tag, img)
}

// renamed pushes the latest image with another manifest, of which a runtime that
// has pulled it lacks nothing else.
func (m *machine) renamed() string {
	m.t.Helper()
	m.pushed++
	tag := strconv.Itoa(m.pushed)
	img, ok := mutate.Annotations(m.latest, map[string]string{"tag": tag}).(v1.Image)
	if !ok {
		m.t.Fatal("an image with annotations is no image")
	}
	return "docker.io/" + m.push("library/row", tag, img)
}

func (m *machine) push(repository, tag string, img v1.Image) string {
	m.t.Helper()
	ref, err := name.NewTag(m.content.host+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		m.t.Fatal(err)
	}
	return repository + ":" + tag
}

// pulls pulls a new image of a registry.
func (m *machine) pulls(c rowClient, registry string) asked {
	m.t.Helper()
	return m.pullsThis(c, m.fresh(registry))
}

func (m *machine) pullsThis(c rowClient, ref string) asked {
	m.t.Helper()
	a := m.watch(func(ctx context.Context) error { return c.pull(ctx, ref) })
	m.t.Logf("pulling %s %s", ref, a)
	return a
}

// from fails the test where a pull did not go to who was meant: "here", the name
// of a registry, or nobody.
func (m *machine) from(a asked, whom, when string) {
	m.t.Helper()
	switch {
	case whom == nobody:
		if a.err == nil || a.here+len(a.straight) > 0 {
			m.t.Errorf("%s: %s; want nobody to be asked", when, a)
		}
	case a.err != nil:
		m.t.Errorf("%s: %s", when, a)
	case whom == "here":
		if a.here == 0 || len(a.straight) > 0 {
			m.t.Errorf("%s: %s; want it to come here", when, a)
		}
	case a.here > 0 || len(a.straight) != 1 || a.straight[whom] == 0:
		m.t.Errorf("%s: %s; want it to go to %s", when, a, whom)
	}
}

// seenFile is all that there is to see of one.
type seenFile struct {
	mode    fs.FileMode
	owner   [2]uint32
	content string
}

// snapshot is everything below folders.
func (m *machine) snapshot(folders ...string) map[string]seenFile {
	m.t.Helper()
	all := map[string]seenFile{}
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if os.IsNotExist(err) && path == folder {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			f := seenFile{mode: info.Mode()}
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				f.owner = [2]uint32{stat.Uid, stat.Gid}
			}
			switch {
			case info.Mode().IsRegular():
				content, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				f.content = string(content)
			case info.Mode()&fs.ModeSymlink != 0:
				if f.content, err = os.Readlink(path); err != nil {
					return err
				}
			}
			all[path] = f
			return nil
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return all
}

// asBefore fails the test where a snapshot differs.
func (m *machine) asBefore(before, after map[string]seenFile) {
	m.t.Helper()
	for path, f := range before {
		if now, ok := after[path]; !ok || now != f {
			m.t.Errorf("%s is not as it was: %v\n%s\nwas %v\n%s", path, now.mode, now.content, f.mode, f.content)
		}
	}
	for path := range maps.Keys(after) {
		if _, ok := before[path]; !ok {
			m.t.Errorf("%s was not there before", path)
		}
	}
}
