package hosts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// Ours stands between two comments, the first of which has the digest of what
// is between them: lines that somebody else wrote there are seen, and not lost.
var (
	beginMark = regexp.MustCompile(`^\s*# Made by "entrepot hosts ([a-z0-9]+)": begin ([0-9a-f]{8})\s*$`)
	endMark   = regexp.MustCompile(`^\s*# Made by "entrepot hosts ([a-z0-9]+)": end\s*$`)
)

// oldMark is the first line of the files that were wholly ours before there
// were marks.
const oldMark = `# Made by "entrepot hosts `

// theirLine begins a line that ours stands in place of.
const theirLine = "# instead of: "

// marked puts marks around lines of ours.
func marked(runtime, lines string) string {
	return fmt.Sprintf("# Made by \"entrepot hosts %s\": begin %s\n%s# Made by \"entrepot hosts %s\": end\n", runtime, shortDigest(lines), lines, runtime)
}

// insteadOf keeps lines that ours stand in place of, for when ours go.
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

// anyRuntime stands for the marks of all runtimes.
const anyRuntime = ""

// unmark takes out what stands between marks of a runtime, puts back what it
// stood in place of, and says whether there was any. What is left of nothing is
// nil.
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
			return nil, true, Blocked{Problem: fmt.Sprintf("line %d begins a part of entrepot's inside of another", line), Mend: "take both out by hand"}
		case of(begin):
			inside, had, digest = true, true, begin[2]
			block.Reset()
			kept.Reset()
		case of(end) && inside:
			if shortDigest(block.String()) != digest {
				return nil, true, Blocked{
					Problem: fmt.Sprintf("what stands between the marks of entrepot above line %d has been edited", line),
					Mend:    "move lines of yours out of there, and take out the rest with both marks",
				}
			}
			inside = false
			out.Write(kept.Bytes())
		case of(end):
			return nil, true, Blocked{Problem: fmt.Sprintf("line %d ends a part of entrepot's that has no begin", line), Mend: "take it out by hand"}
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
		return nil, true, Blocked{Problem: "a part of entrepot's begins and has no end", Mend: "take it out by hand"}
	}
	if !had {
		return withoutOld(content)
	}
	return orNil(out.Bytes()), true, nil
}

// oldLine is a line of the files that were wholly ours before there were marks.
var oldLine = regexp.MustCompile(`^(\s*|# Made by "entrepot hosts [a-z0-9]+"\.|# \S+ (itself )?is left out: .*|\[host\."[^"]*"\]|\[registry\."[^"]*"\]|\[\[registry(\.mirror)?\]\]` +
	`|\s*(server|prefix|location) = "[^"]*"|\s*(override_path|insecure|http) = true|\s*(capabilities|mirrors) = \[[^\]]*\]` +
	`|mirrors:|  "[^"]*":|    endpoint:|      - "[^"]*"|---|apiVersion: v1alpha1|kind: RegistryMirrorConfig|name: "[^"]*"|endpoints:|  - url: "[^"]*"|    overridePath: true` +
	`|HOMEBREW_ARTIFACT_DOMAIN=\S+)$`)

// withoutOld takes a file of the kind that was wholly ours for what it is, as
// long as nobody has put anything else into it.
func withoutOld(content []byte) (rest []byte, had bool, err error) {
	first, _, _ := strings.Cut(string(content), "\n")
	if !strings.HasPrefix(first, oldMark) || beginMark.MatchString(strings.TrimRight(first, "\r")) {
		return content, false, nil
	}
	line := 0
	for text := range strings.Lines(string(content)) {
		line++
		if !oldLine.MatchString(strings.TrimRight(text, "\r\n")) {
			return nil, true, Blocked{Problem: fmt.Sprintf("an earlier entrepot made it, and line %d is somebody else's", line), Mend: "put that line aside, take the file away, run this again, and put the line back"}
		}
	}
	return nil, true, nil
}

// Blocked says why ours can't go into a file, or out of it, without taking
// something from somebody, and what to do by hand.
type Blocked struct {
	Path    string
	Problem string
	Mend    string
	Lines   string // to be put there by hand
}

func (b Blocked) Error() string {
	text := b.Problem
	if b.Path != "" {
		text = b.Path + ": " + text
	}
	if b.Mend != "" {
		text += "; " + b.Mend
	}
	if b.Lines != "" {
		text += ":\n" + strings.TrimRight("    "+strings.ReplaceAll(strings.TrimRight(b.Lines, "\n"), "\n", "\n    "), " ")
	}
	return text
}
