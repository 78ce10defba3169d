package upstream

import "strings"

// challenge is one way to authenticate (RFC 9110, section 11.6.1).
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// chooseChallenge prefers Bearer to Basic and ignores all other schemes.
func chooseChallenge(headers []string) (challenge, bool) {
	var basic *challenge
	for _, header := range headers {
		for _, c := range parseChallenges(header) {
			switch {
			case c.scheme == "bearer" && c.params["realm"] != "":
				return c, true
			case c.scheme == "basic" && basic == nil:
				basic = &c
			}
		}
	}
	if basic != nil {
		return *basic, true
	}
	return challenge{}, false
}

// parseChallenges parses a WWW-Authenticate header and skips what it does not
// understand.
func parseChallenges(header string) []challenge {
	var all []challenge
	for rest := header; ; {
		rest = strings.TrimLeft(rest, " \t,")
		word := leadingToken(rest)
		if word == "" {
			return all
		}
		rest = rest[len(word):]
		after := strings.TrimLeft(rest, " \t")
		if strings.HasPrefix(after, "=") && len(all) > 0 {
			value, tail := leadingValue(strings.TrimLeft(after[1:], " \t"))
			last := all[len(all)-1]
			if _, twice := last.params[strings.ToLower(word)]; !twice {
				last.params[strings.ToLower(word)] = value
			}
			rest = tail
			continue
		}
		if strings.HasPrefix(after, "=") {
			return all // a parameter without a scheme
		}
		all = append(all, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
	}
}

func leadingToken(s string) string {
	end := strings.IndexFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
	if end < 0 {
		return s
	}
	return s[:end]
}

// leadingValue reads a token or a quoted string.
func leadingValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		word := leadingToken(s)
		return word, s[len(word):]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
