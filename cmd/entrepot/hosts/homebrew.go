package hosts

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
)

// homebrew pulls its bottles from ghcr.io. An artifact domain replaces
// https://ghcr.io/v2 in their URLs. It is configured by the environment, or by
// a file of variables. That file is not a shell script: an export in it is
// ignored.
func homebrew() Runtime {
	return Runtime{
		Name: "homebrew",
		Place: func(m Machine) string {
			if m.Rootless && !m.ConfigSet {
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
				Notes: s.Mirror.homebrewNotes(),
			}, nil
		},
		Text: func(s Setting) (string, error) {
			line, err := s.Mirror.artifactDomain()
			if err != nil {
				return "", err
			}
			var b strings.Builder
			for _, note := range s.Mirror.homebrewNotes() {
				b.WriteString("# " + note + ".\n")
			}
			return b.String() + "export " + line, nil
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
				return errors.New(s.below("brew.env") + " does not contain it")
			}
			return nil
		},
		Down: func(Version) string {
			return "nothing where the connection is refused, for as long as curl waits where its machine is gone or it hangs; then Homebrew from before August 2026 fails, and later ones go on to ghcr.io"
		},
		Restart: "nothing",
	}
}

const (
	brewRegistry     = "ghcr.io"
	brewVariable     = "HOMEBREW_ARTIFACT_DOMAIN"
	homebrewReplaces = "this stands in place of ghcr.io: while entrepot is down, Homebrew from before August 2026 installs nothing"
)

func (m Mirror) artifactDomain() (string, error) {
	r, ok := m.Registry(brewRegistry)
	if !ok || r.Prefix == "" {
		return "", errors.New("homebrew pulls from ghcr.io, which is not among the upstreams")
	}
	return brewVariable + "=" + m.Addresses[0].String() + "/v2/" + r.Prefix + "\n", nil
}

// homebrewNotes returns what can't be configured in Homebrew, and what a mirror
// costs there.
func (m Mirror) homebrewNotes() []string {
	notes := []string{homebrewReplaces}
	for _, other := range m.Addresses[1:] {
		notes = append(notes, "Homebrew supports one address: "+other.String()+" is left out")
	}
	if m.CAFile != "" && m.Addresses[0].Scheme == "https" {
		notes = append(notes, "Homebrew trusts the CAs that the system trusts: the CA of entrepot's certificate has to be among those ("+m.CAFile+")")
	}
	return notes
}

func brewEnv(line string) Edit {
	return func(theirs []byte) (Change, error) {
		lines := linesOf(theirs)
		for _, their := range lines {
			switch {
			case their == line:
				return Change{Content: theirs}, nil
			case strings.HasPrefix(strings.TrimSpace(their), brewVariable+"="):
				return Change{}, Blocked{Problem: "it has another mirror: " + strings.TrimSpace(their), Fix: "there can be only one: remove that line, or leave it as it is", Lines: line}
			}
		}
		return Change{Content: putBefore(lines, len(lines)+1, marked("homebrew", line)), Undo: Undo{Kind: undoMarked}}, nil
	}
}
