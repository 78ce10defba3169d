package hosts

import (
	"regexp"
	"strconv"
	"strings"
)

// Version is the version of a runtime. The zero value means unknown.
type Version struct {
	Major, Minor int
	// Found says that the version comes from the machine, not from the user.
	Found bool
}

// latest is the minor version if only the major version is given.
const latest = -1

// Known reports whether the version is known.
func (v Version) Known() bool { return v.Major != 0 }

// AtLeast returns false if the version is unknown.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && (v.Minor == latest || v.Minor >= minor)
}

func (v Version) String() string {
	switch {
	case !v.Known():
		return "an unknown version"
	case v.Minor == latest:
		return strconv.Itoa(v.Major)
	}
	return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor)
}

// ParseVersion parses "2.2.1", "v2.2.0-rc.1" or, if the minor version does not
// matter, "29".
func ParseVersion(text string) (Version, bool) {
	parts := strings.SplitN(strings.TrimPrefix(text, "v"), ".", 3)
	major, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil || major == 0 {
		return Version{}, false
	}
	if len(parts) == 1 {
		return Version{Major: int(major), Minor: latest}, true
	}
	minor, err := strconv.ParseUint(parts[1], 10, 16)
	return Version{Major: int(major), Minor: int(minor)}, err == nil
}

// versionWord matches a version as programs print it.
var versionWord = regexp.MustCompile(`\bv?[0-9]+\.[0-9]+(\.[0-9]+)?`)

// versionIn returns the version in a program's output.
func versionIn(output string) Version {
	v, ok := ParseVersion(versionWord.FindString(output))
	if !ok {
		return Version{}
	}
	v.Found = true
	return v
}
