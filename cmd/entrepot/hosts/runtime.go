package hosts

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"
)

// Runtime is a kind of client that entrepot can configure.
//
// To add one, write a file with its name and a function that returns its
// Runtime, and add that to [Runtimes]. It consists of
//
//   - Place: the folder that its files are below, for root and for other users.
//   - Files: the files that it reads in the given version, each with an [Edit].
//     An edit is a pure function from the user's content to the new content.
//     The engine first removes entrepot's settings ([Setting.Theirs]). It shows,
//     backs up, writes, records and restores. A format with "#" comments wraps
//     entrepot's lines with [marked], which also includes the lines that they
//     replace, by [insteadOf]. TOML is then checked with [proveTOML]. JSON
//     returns an [Undo] that lists what was added. An edit that can't preserve
//     existing settings returns [Blocked].
//   - Comes: whether pulls of a registry come here with the files on disk. This
//     is judged as the runtime itself does, not by whether entrepot made them.
//   - Ask: the result of the runtime's own parser, if it has one and is
//     installed.
//   - Down: what a pull costs with entrepot down.
//   - Restart: what to do after a change, and Undone, if undoing needs more.
//
// Everything about a registry comes from [Mirror]. No format determines the
// real server by itself.
type Runtime struct {
	Name string
	// Shares is the name of another runtime that reads the same files. A record
	// for one counts for both.
	Shares string
	// Version parses the value of --version. It is nil if nothing depends on
	// the version. Program prints the version if the runtime is installed.
	Version func(text string) (Version, error)
	Program []string
	// Elsewhere says that the files are for other machines, so a loopback
	// address would mean another machine.
	Elsewhere bool
	Place     func(Machine) string
	Files     func(Setting) (Layout, error)
	// Text returns what is printed, if that is more than the files one after
	// the other. It may be nil.
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
	// Dir is the folder that the files are below. DirGiven says that the user
	// named it, so it is not the runtime's default folder.
	Dir      string
	DirGiven bool
	state    state
	// blank makes the disk look empty.
	blank bool
	// asIs says that files are read with entrepot's settings in them.
	asIs bool
}

// below returns a path below the folder of the files.
func (s Setting) below(path string) string { return filepath.Join(s.Dir, filepath.FromSlash(path)) }

// Typed returns a command as the user has to type it: a rootless runtime is a
// user service.
func (s Setting) Typed(what string) string {
	if s.Machine.Rootless && !s.DirGiven {
		return strings.ReplaceAll(what, "systemctl ", "systemctl --user ")
	}
	return what
}

// Layout is the files of a runtime.
type Layout struct {
	Files []File
	// Notes are messages for the user: what is missing from the files and why,
	// and what else has to be done.
	Notes []string
}

// File is one file that a runtime reads.
type File struct {
	Path string
	Edit Edit
	// Extra says that the file is outside of the given folder, and not part of
	// what is printed. Only an existing file is changed.
	Extra bool
}

// Edit returns the new content of a file. It gets the user's content, without
// entrepot's settings, or nil if the user has no such file. It MUST preserve
// the meaning of that content, or return [Blocked]. The same input gives the
// same output.
type Edit func(theirs []byte) (Change, error)

// Change is the new content of a file, and how to remove entrepot's settings
// from it.
type Change struct {
	Content []byte
	Undo    Undo
}

// Verdict is the result of a runtime's own parser.
type Verdict struct {
	Asked string // the command
	Said  string // empty if the parser accepts the files
}

// Runtimes returns all runtimes, the most used first.
func Runtimes() []Runtime {
	return append([]Runtime{
		containerd(), docker(), registriesConf("crio"), registriesConf("podman"), registriesConf("skopeo"), registriesConf("buildah"),
		buildkit("buildkit"), buildkit("buildx"), registriesYAML("k3s"), registriesYAML("rke2"), talos(), homebrew(),
	}, elsewhere()...)
}

// Names returns the names of the runtimes.
func Names() []string {
	var names []string
	for _, r := range Runtimes() {
		names = append(names, r.Name)
	}
	return names
}

// Find returns the runtime with that name.
func Find(name string) (Runtime, bool) {
	all := Runtimes()
	i := slices.IndexFunc(all, func(r Runtime) bool { return r.Name == name })
	if i < 0 {
		return Runtime{}, false
	}
	return all[i], true
}

// AfterRemove returns what to do after files are restored.
func (r Runtime) AfterRemove() string { return cmp.Or(r.Undone, r.Restart) }

// owner returns the name under which files are recorded.
func (r Runtime) owner() string {
	if r.Shares != "" {
		return r.Shares
	}
	return r.Name
}

// FindVersion finds out the version of the runtime on the machine.
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

// NewSetting returns the setting that files are made for. Dir is the folder
// that the user named, or empty for the runtime's default.
func (r Runtime) NewSetting(m Mirror, v Version, machine Machine, dir string) (Setting, error) {
	s := Setting{Mirror: m, Version: v, Machine: machine, Dir: dir, DirGiven: dir != ""}
	if !s.DirGiven {
		s.Dir = r.Place(machine)
	}
	var err error
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return s, err
	}
	s.state, err = readState(s.Dir)
	return s, err
}
