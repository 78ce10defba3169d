package proxy

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The grammars of distribution-spec, "Pulling manifests". They are parsed by
// hand because every request is checked against them, and regular expressions
// would cost more than the rest of the routing.
const (
	maxName = 255
	maxTag  = 128
)

// isName reports whether s is a repository name: components of the form
// [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*, separated by slashes.
func isName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if !isComponent(part) {
			return false
		}
	}
	return true
}

func isComponent(s string) bool {
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && isAlphanumeric(s[i]) {
			i++
		}
		if i == start {
			return false
		}
		if i == len(s) {
			return true
		}
		switch s[i] {
		case '.':
			i++
		case '_':
			if i++; i < len(s) && s[i] == '_' {
				i++
			}
		case '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		default:
			return false
		}
	}
	return false // empty, or a separator at the end
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// isTag reports whether s matches [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func isTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// parseDigest parses a digest whose algorithm can be verified.
func parseDigest(s string) (digest.Digest, error) {
	if hex, ok := strings.CutPrefix(s, "sha256:"); ok && len(hex) == 64 && isHex(hex) {
		return digest.Digest(s), nil
	}
	d, err := digest.Parse(s)
	if err != nil {
		return "", refuse(http.StatusBadRequest, codeDigestInvalid, fmt.Sprintf("%.140q is not a digest: %v", s, err))
	}
	return d, nil
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
