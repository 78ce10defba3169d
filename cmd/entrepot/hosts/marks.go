package hosts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// entrepot's lines are between two marks, which are comments. The first mark
// has the digest of the lines, so that edits by others are noticed and not
// lost.
var (
	beginMark = regexp.MustCompile(`^\s*# Made by "entrepot hosts ([a-z0-9]+)": begin ([0-9a-f]{8})\s*$`)
	endMark   = regexp.MustCompile(`^\s*# Made by "entrepot hosts ([a-z0-9]+)": end\s*$`)
)

// oldMark begins the files of earlier versions, which had no marks and
// contained only entrepot's settings.
const oldMark = `# Made by "entrepot hosts `

// theirLine begins a line that was replaced.
const theirLine = "# instead of: "

// marked returns lines with marks around them.
func marked(runtime, lines string) string {
	return fmt.Sprintf("# Made by \"entrepot hosts %s\": begin %s\n%s# Made by \"entrepot hosts %s\": end\n", runtime, shortDigest(lines), lines, runtime)
}

// insteadOf returns replaced lines as comments, so that they can be restored.
func insteadOf(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		b.WriteString(theirLine + strings.TrimRight(line, "\r\n") + "\n")
	}
	return b.String()
}

func shortDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// anyRuntime selects the marks of all runtimes.
const anyRuntime = ""

// unmark removes what is between the marks of a runtime, restores what it
// replaced, and reports whether there were marks. It returns nil if nothing is
// left.
func unmark(content []byte, runtime string) (rest []byte, had bool, err error) {
	of := func(mark []string) bool { return mark != nil && (runtime == anyRuntime || runtime == mark[1]) }
	var out, block, kept bytes.Buffer
	digest, line := "", 0
	inside := false
	for text := range strings.Lines(string(content)) {
		line++
		bare := strings.TrimRight(text, "\r\n")
		begin, end := beginMark.FindStringSubmatch(bare), endMark.FindStringSubmatch(bare)
		switch {
		case of(begin) && inside:
			return nil, true, Blocked{Problem: fmt.Sprintf("line %d begins a section of entrepot inside another", line), Fix: "remove both by hand"}
		case of(begin):
			inside, had, digest = true, true, begin[2]
			block.Reset()
			kept.Reset()
		case of(end) && inside:
			if shortDigest(block.String()) != digest {
				return nil, true, Blocked{
					Problem: fmt.Sprintf("what stands between the marks of entrepot above line %d has been edited", line),
					Fix:     "move your lines out of there, and remove the rest with both marks",
				}
			}
			inside = false
			out.Write(kept.Bytes())
		case of(end):
			return nil, true, Blocked{Problem: fmt.Sprintf("line %d ends a section of entrepot that has no begin", line), Fix: "remove it by hand"}
		case inside:
			block.WriteString(text)
			if theirs, ok := strings.CutPrefix(text, theirLine); ok {
				kept.WriteString(theirs)
			}
		default:
			out.WriteString(text)
		}
	}
	if inside {
		return nil, true, Blocked{Problem: "a section of entrepot begins and has no end", Fix: "remove it by hand"}
	}
	if !had {
		return withoutOld(content)
	}
	return orNil(out.Bytes()), true, nil
}

// oldLine matches the lines of files from before there were marks.
var oldLine = regexp.MustCompile(`^(\s*|# Made by "entrepot hosts [a-z0-9]+"\.|# \S+ (itself )?is left out: .*|\[host\."[^"]*"\]|\[registry\."[^"]*"\]|\[\[registry(\.mirror)?\]\]` +
	`|\s*(server|prefix|location) = "[^"]*"|\s*(override_path|insecure|http) = true|\s*(capabilities|mirrors) = \[[^\]]*\]` +
	`|mirrors:|  "[^"]*":|    endpoint:|      - "[^"]*"|---|apiVersion: v1alpha1|kind: RegistryMirrorConfig|name: "[^"]*"|endpoints:|  - url: "[^"]*"|    overridePath: true` +
	`|HOMEBREW_ARTIFACT_DOMAIN=\S+)$`)

// withoutOld recognizes a file from before there were marks, as long as nobody
// else has added anything to it.
func withoutOld(content []byte) (rest []byte, had bool, err error) {
	first, _, _ := strings.Cut(string(content), "\n")
	if !strings.HasPrefix(first, oldMark) || beginMark.MatchString(strings.TrimRight(first, "\r")) {
		return content, false, nil
	}
	line := 0
	for text := range strings.Lines(string(content)) {
		line++
		if !oldLine.MatchString(strings.TrimRight(text, "\r\n")) {
			return nil, true, Blocked{Problem: fmt.Sprintf("an earlier entrepot made it, and line %d was added by somebody else", line), Fix: "save that line, delete the file, run this again, and add the line again"}
		}
	}
	return nil, true, nil
}

// Blocked says why a file can't be changed without losing somebody's settings,
// and what to do by hand.
type Blocked struct {
	Path    string
	Problem string
	Fix     string
	Lines   string // to be added by hand
}

func (b Blocked) Error() string {
	text := b.Problem
	if b.Path != "" {
		text = b.Path + ": " + text
	}
	if b.Fix != "" {
		text += "; " + b.Fix
	}
	if b.Lines != "" {
		text += ":\n" + strings.TrimRight("    "+strings.ReplaceAll(strings.TrimRight(b.Lines, "\n"), "\n", "\n    "), " ")
	}
	return text
}
