package hosts

import (
	"regexp"
	"strconv"
	"strings"
)

// Version is how far a runtime is. The zero value is one that nobody knows.
type Version struct {
	Major, Minor int
	// Found says that the machine told it, not a person.
	Found bool
}

// latest stands for the minor version where only the major one is told.
const latest = -1

// Known says that there is a version.
func (v Version) Known() bool { return v.Major != 0 }

// AtLeast is false for a version that nobody knows.
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

// ParseVersion reads "2.2.1", "v2.2.0-rc.1" or, where that says enough, "29".
func ParseVersion(told string) (Version, bool) {
	parts := strings.SplitN(strings.TrimPrefix(told, "v"), ".", 3)
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

// versionWord is a version as programs print it.
var versionWord = regexp.MustCompile(`\bv?[0-9]+\.[0-9]+(\.[0-9]+)?`)

// versionIn finds the version in what a program prints of itself.
func versionIn(output string) Version {
	v, ok := ParseVersion(versionWord.FindString(output))
	if !ok {
		return Version{}
	}
	v.Found = true
	return v
}
