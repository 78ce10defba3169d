package hosts

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"
)

// Runtime is a kind of client whose configuration can be made.
//
// To add one: write a file that is named for it, with a function that returns
// its Runtime, and put that into [Runtimes]. What it has to say is
//
//   - Place: the folder that its files are below, for root and for others.
//   - Files: which files it reads in the version at hand, each with an [Edit].
//     An edit is a pure function from what a file holds without ours to what
//     it has to hold: the engine takes ours out first ([Setting.Theirs]),
//     shows, backs up, writes, records and gives back. A format with "#"
//     comments marks ours with [marked], and puts what it replaces into the
//     mark with [insteadOf]; TOML is then held against [proveTOML]. JSON
//     returns an [Undo] that says what was put into it. An edit that can't
//     keep what is there returns [Blocked].
//   - Comes: whether what is on disk brings a pull of a registry here, judged
//     as the runtime itself would, and not by whether the file is ours.
//   - Ask: what the runtime's own parser says, where it has one and is
//     installed.
//   - Down: what a pull costs with entrepot down; Restart: what to do after,
//     and Undone, where undoing takes more.
//
// Everything that is told of a registry comes from [Mirror]: no format works
// out the real server by itself.
type Runtime struct {
	Name string
	// Shares is the name of another runtime that reads the same files; what is
	// recorded of one counts for both.
	Shares string
	// Version reads what somebody tells with --version; nil where nothing
	// depends on it. Program prints it where the runtime is installed.
	Version func(told string) (Version, error)
	Program []string
	// Elsewhere says that what is made is for other machines, so that a loopback
	// address means another than this one.
	Elsewhere bool
	Place     func(Machine) string
	Files     func(Setting) (Layout, error)
	// Text is what is printed where that is more than the files one after the
	// other; nil where it is not.
	Text    func(Setting) (string, error)
	Comes   func(Setting, Registry) error
	Ask     func(context.Context, Setting) (Verdict, error)
	Down    func(Version) string
	Restart string
	Undone  string
}

// Setting is what a runtime's files are made for.
type Setting struct {
	Mirror  Mirror
	Version Version
	Machine Machine
	// Dir is the folder that the files are below; Told says that somebody named
	// it, and it is not the runtime's own.
	Dir  string
	Told bool
	kept state
	// blank says that nothing is on disk, as far as this is asked.
	blank bool
	// asIs says that files are looked at with ours in them.
	asIs bool
}

// below is a path below the folder of the files.
func (s Setting) below(path string) string { return filepath.Join(s.Dir, filepath.FromSlash(path)) }

// Typed is what to do as who runs this has to type it: a rootless runtime is a
// service of its user's.
func (s Setting) Typed(what string) string {
	if s.Machine.Rootless && !s.Told {
		return strings.ReplaceAll(what, "systemctl ", "systemctl --user ")
	}
	return what
}

// Layout is the files of a runtime.
type Layout struct {
	Files []File
	// Notes are for people: what is not in the files and why, what they have to
	// do besides.
	Notes []string
}

// File is one file that a runtime reads.
type File struct {
	Path string
	Edit Edit
	// Aside says that the file is not below the folder that somebody names, and
	// is no part of what is printed: only what is there is mended.
	Aside bool
}

// Edit makes of what a file holds what it has to hold. It is given what people
// wrote alone, nil where they have no such file, and MUST keep the meaning of
// all of it: or else it returns [Blocked]. The same in gives the same out.
type Edit func(theirs []byte) (Change, error)

// Change is what a file has to hold, and how ours comes out of it again.
type Change struct {
	Content []byte
	Undo    Undo
}

// Verdict is what a runtime's own parser says.
type Verdict struct {
	Asked string // the command
	Said  string // empty where it has nothing to say against the files
}

// Runtimes are all that are known, most used first.
func Runtimes() []Runtime {
	return append([]Runtime{
		containerd(), docker(), registriesConf("crio"), registriesConf("podman"), registriesConf("skopeo"), registriesConf("buildah"),
		buildkit("buildkit"), buildkit("buildx"), registriesYAML("k3s"), registriesYAML("rke2"), talos(), homebrew(),
	}, elsewhere()...)
}

// Names are those of the runtimes.
func Names() []string {
	var names []string
	for _, r := range Runtimes() {
		names = append(names, r.Name)
	}
	return names
}

// Find returns the runtime of that name.
func Find(name string) (Runtime, bool) {
	all := Runtimes()
	i := slices.IndexFunc(all, func(r Runtime) bool { return r.Name == name })
	if i < 0 {
		return Runtime{}, false
	}
	return all[i], true
}

// AfterRemove is what to do once files are given back.
func (r Runtime) AfterRemove() string { return cmp.Or(r.Undone, r.Restart) }

// owner is the name under which files are recorded.
func (r Runtime) owner() string {
	if r.Shares != "" {
		return r.Shares
	}
	return r.Name
}

// FindVersion asks the machine for the runtime's version.
func (r Runtime) FindVersion(ctx context.Context, m Machine) Version {
	if len(r.Program) == 0 || r.Version == nil {
		return Version{}
	}
	said, err := m.Output(ctx, r.Program[0], r.Program[1:]...)
	if err != nil {
		return Version{}
	}
	return versionIn(said)
}

// NewSetting puts together what files are made for. Dir is what somebody named,
// or empty for the runtime's own place.
func (r Runtime) NewSetting(m Mirror, v Version, machine Machine, dir string) (Setting, error) {
	s := Setting{Mirror: m, Version: v, Machine: machine, Dir: dir, Told: dir != ""}
	if !s.Told {
		s.Dir = r.Place(machine)
	}
	var err error
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return s, err
	}
	s.kept, err = readState(s.Dir)
	return s, err
}
