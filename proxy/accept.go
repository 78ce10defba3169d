package proxy

import (
	"mime"
	"net/http"
	"slices"
	"strings"
)

// maxAcceptedTypes is how many media types a client may name. Real clients name
// a dozen at most.
const maxAcceptedTypes = 32

// acceptedTypes are the media types that a client accepts, sorted; none if it
// accepts any (RFC 9110, section 12.5.1).
func acceptedTypes(header http.Header) (types []string) {
	for _, line := range header["Accept"] {
		for part := range strings.SplitSeq(line, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			if isPlainType(part) && len(types) < maxAcceptedTypes {
				types = append(types, part)
				continue
			}
			mediaType, params, err := mime.ParseMediaType(part)
			switch {
			case err != nil || strings.Contains(mediaType, "*") || len(types) == maxAcceptedTypes:
				return nil
			case strings.Trim(params["q"], "0.") == "" && params["q"] != "":
				continue // it does not accept this one
			}
			types = append(types, mediaType)
		}
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// isPlainType reports whether s is a media type as nearly all clients write it,
// which needs no more reading: one slash, nothing but letters, digits and a few
// signs around it, and no parameters.
func isPlainType(s string) bool {
	slash := strings.IndexByte(s, '/')
	if slash <= 0 || slash == len(s)-1 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '+' && c != '-' && i != slash {
			return false
		}
	}
	return true
}
