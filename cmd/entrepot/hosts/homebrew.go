package hosts

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
)

// homebrew pulls its bottles from ghcr.io, and puts a domain of artifacts in
// place of https://ghcr.io/v2 in their URLs. It is told by the environment, or
// by a file of variables that is no shell's: an export there is not read.
func homebrew() Runtime {
	return Runtime{
		Name: "homebrew",
		Place: func(m Machine) string {
			if m.Rootless && !m.ConfigTold {
				return filepath.Join(m.Home, ".homebrew")
			}
			return m.Own("/etc/homebrew", "homebrew")
		},
		Files: func(s Setting) (Layout, error) {
			line, err := s.Mirror.artifactDomain()
			if err != nil {
				return Layout{}, err
			}
			return Layout{
				Files: []File{{Path: s.below("brew.env"), Edit: brewEnv(line)}},
				Notes: []string{homebrewReplaces},
			}, nil
		},
		Text: func(s Setting) (string, error) {
			line, err := s.Mirror.artifactDomain()
			if err != nil {
				return "", err
			}
			return "# " + homebrewReplaces + ".\nexport " + line, nil
		},
		Comes: func(s Setting, r Registry) error {
			if r.Name != brewRegistry {
				return errNotAsked
			}
			content, err := readFile(s.below("brew.env"))
			if err != nil {
				return err
			}
			line, err := s.Mirror.artifactDomain()
			if err != nil {
				return err
			}
			if !bytes.Contains(append([]byte("\n"), content...), []byte("\n"+line)) {
				return errors.New(s.below("brew.env") + " does not name it")
			}
			return nil
		},
		Down: func(Version) string {
			return "every install from ghcr.io fails in Homebrew 4; newer ones go on to ghcr.io"
		},
		Restart: "nothing",
	}
}

const (
	brewRegistry     = "ghcr.io"
	brewVariable     = "HOMEBREW_ARTIFACT_DOMAIN"
	homebrewReplaces = "this stands in place of ghcr.io: while entrepot is down, Homebrew 4 installs nothing"
)

func (m Mirror) artifactDomain() (string, error) {
	r, ok := m.Registry(brewRegistry)
	if !ok || r.Prefix == "" {
		return "", errors.New("homebrew pulls from ghcr.io, which is not among the upstreams")
	}
	return brewVariable + "=" + m.Addresses[0].String() + "/v2/" + r.Prefix + "\n", nil
}

func brewEnv(line string) Edit {
	return func(theirs []byte) (Change, error) {
		lines := linesOf(theirs)
		for _, their := range lines {
			switch {
			case their == line:
				return Change{Content: theirs}, nil
			case strings.HasPrefix(strings.TrimSpace(their), brewVariable+"="):
				return Change{}, Blocked{Problem: "another mirror is in it: " + strings.TrimSpace(their), Mend: "there can be one only: take that line out, or keep it", Lines: line}
			}
		}
		return Change{Content: putBefore(lines, len(lines)+1, marked("homebrew", line)), Undo: Undo{Kind: undoMarked}}, nil
	}
}
