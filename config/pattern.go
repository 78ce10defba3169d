package config

import (
	"regexp"
	"strings"
)

// Match reports whether a repository matches a pattern. In a pattern, "**"
// stands for any number of segments, including none, and "*" for any characters
// within a segment.
func Match(pattern, repository string) bool {
	return matchSegments(strings.Split(pattern, "/"), strings.Split(repository, "/"))
}

func matchSegments(pattern, segments []string) bool {
	// Only the last "**" needs backtracking: an earlier one could not match
	// anything that the later one can't. So the time is bounded.
	p, s := 0, 0
	retryPattern, retrySegment := -1, 0
	for s < len(segments) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			retryPattern, retrySegment = p, s
			p++
		case p < len(pattern) && matchText(pattern[p], segments[s]):
			p++
			s++
		case retryPattern >= 0:
			retrySegment++
			p, s = retryPattern+1, retrySegment
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

// matchText matches one segment. "*" stands for any characters, but a segment
// is never empty.
func matchText(pattern, text string) bool {
	if text == "" {
		return false
	}
	p, t := 0, 0
	retryPattern, retryText := -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			retryPattern, retryText = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case retryPattern >= 0:
			retryText++
			p, t = retryPattern+1, retryText
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// digestTag matches tags that stand for a digest (distribution-spec, "Referrers
// Tag Schema"), and cosign's, which add a suffix. They change whenever
// something is attached.
var digestTag = regexp.MustCompile(`^(sha256|sha384|sha512|blake3)-[0-9a-f]{32,}(\.[a-z]+)?$`)

// MatchTag reports whether a tag matches a pattern, in which "*" stands for any
// characters. Tags of the referrers tag schema never match (W56).
func MatchTag(pattern, tag string) bool {
	return !digestTag.MatchString(tag) && matchText(pattern, tag)
}
