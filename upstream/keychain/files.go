package keychain

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// maxFile is the size in bytes of the largest file that is read. A Secret of
// Kubernetes has at most 1 MiB.
const maxFile = 4 << 20

// source is a place where credentials may be.
type source struct {
	path    string
	content string // instead of a file
	legacy  bool
}

// Files are all files that programs keep the credentials of registries in. None
// of them hides another.
type Files struct {
	log     *slog.Logger
	sources []source

	mu     sync.Mutex
	read   map[string]snapshot // by path
	logged map[string]bool
}

// snapshot is a file as it was read.
type snapshot struct {
	info    fs.FileInfo // nil if there is no file
	entries []entry
	err     error
}

// NewFiles returns the files that the environment names, and those of Docker
// and Podman in their usual places.
func NewFiles(log *slog.Logger) *Files {
	home, _ := os.UserHomeDir()
	return FilesOf(home, os.Getenv, log)
}

// FilesOf is NewFiles for another home, which may be "", and another
// environment.
func FilesOf(home string, getenv func(string) string, log *slog.Logger) *Files {
	return &Files{log: log, sources: sources(home, getenv), read: make(map[string]snapshot), logged: make(map[string]bool)}
}

// sources lists where credentials may be, the most explicit first.
func sources(home string, getenv func(string) string) []source {
	var all []source
	add := func(legacy bool, path ...string) {
		if path[0] != "" {
			all = append(all, source{path: filepath.Join(path...), legacy: legacy})
		}
	}
	if content := getenv("DOCKER_AUTH_CONFIG"); content != "" {
		all = append(all, source{path: "$DOCKER_AUTH_CONFIG", content: content})
	}
	add(false, getenv("REGISTRY_AUTH_FILE"))
	docker := getenv("DOCKER_CONFIG")
	if docker == "" && home != "" {
		docker = filepath.Join(home, ".docker")
	}
	add(false, docker, "config.json")
	// A pull secret that is mounted as a folder has the names of its keys.
	add(false, docker, ".dockerconfigjson")
	add(true, docker, ".dockercfg")
	add(false, getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if getenv("XDG_RUNTIME_DIR") == "" && os.Getuid() >= 0 {
		add(false, "/run/containers", strconv.Itoa(os.Getuid()), "auth.json")
	}
	config := getenv("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	add(false, config, "containers", "auth.json")
	add(true, home, ".dockercfg")
	return all
}

// entries returns what all files contain now. The error names those that cannot
// be read; the others still count.
func (f *Files) entries() (all []entry, failed error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sources {
		now := f.load(s)
		all = append(all, now.entries...)
		failed = errors.Join(failed, now.err)
	}
	return all, failed
}

// load reads a file unless it is the one that was read last. A Secret that
// rotates is another file under the same name. f.mu is held.
func (f *Files) load(s source) snapshot {
	last, known := f.read[s.path]
	if known && s.content != "" {
		return last
	}
	var now snapshot
	content := []byte(s.content)
	if s.content == "" {
		info, err := os.Stat(s.path)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && info.IsDir():
			return f.note(s, now)
		case errors.Is(err, fs.ErrPermission):
			f.warn(err) // the folder of another user, where nothing need be
			return f.note(s, now)
		case err == nil && known && last.err == nil && isSame(last.info, info):
			return last
		case err == nil:
			now.info = info
			content, err = readFile(s.path)
		}
		if err != nil {
			now.err = err
			return f.note(s, now)
		}
	}
	now.entries, now.err = parse(s.path, content, s.legacy)
	return f.note(s, now)
}

func isSame(a, b fs.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return content, err
}

// note keeps what was read, and logs what is not understood in it. f.mu is held.
func (f *Files) note(s source, now snapshot) snapshot {
	f.read[s.path] = now
	for _, err := range append([]error{now.err}, problems(now.entries)...) {
		f.warn(err)
	}
	return now
}

// warn logs a problem once. f.mu is held.
func (f *Files) warn(err error) {
	if err != nil && !f.logged[err.Error()] {
		f.logged[err.Error()] = true
		f.log.Warn("credentials are not understood", "error", err)
	}
}

// problems says what of the entries cannot be used.
func problems(entries []entry) (all []error) {
	for _, e := range entries {
		if e.err != nil {
			all = append(all, e.err)
			continue
		}
		if e.helper == "" {
			continue
		}
		if _, err := exec.LookPath(program(e.helper)); err != nil {
			all = append(all, fmt.Errorf("%s: the entry %q: %w", e.file, e.key, err))
		}
	}
	return all
}

// Announce reads all files, and logs what is not understood in them.
func (f *Files) Announce() { _, _ = f.entries() }

// names are the files that exist, or else those that were looked for.
func (f *Files) names() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found, all []string
	for _, s := range f.sources {
		all = append(all, s.path)
		if f.read[s.path].info != nil || s.content != "" {
			found = append(found, s.path)
		}
	}
	if len(found) == 0 {
		found = all
	}
	return strings.Join(slices.Compact(found), ", ")
}
