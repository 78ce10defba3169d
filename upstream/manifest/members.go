package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

var errNoObject = errors.New("not an object")

// Members returns the named members of the object raw, which has to be valid
// JSON: it only looks for where values end. The bytes of a value are those of
// raw. A decoder would scan and copy each value several times, which for
// megabytes of garbage takes longer than clients wait.
func Members(raw []byte, names ...string) (map[string]json.RawMessage, error) {
	found, twice, err := split(raw, names)
	switch {
	case err != nil:
		return nil, err
	case twice != "":
		return nil, fmt.Errorf("%q is given twice", twice)
	}
	return found, nil
}

// split is like Members, and says which of the names is given twice, if one is.
// Then the last of its values is found.
func split(raw []byte, names []string) (found map[string]json.RawMessage, twice string, err error) {
	found = make(map[string]json.RawMessage, len(names))
	err = EachMember(raw, func(name string, value json.RawMessage) {
		if !slices.Contains(names, name) {
			return
		}
		if _, again := found[name]; again {
			twice = name
		}
		found[name] = value
	})
	if err != nil {
		return nil, "", err
	}
	return found, twice, nil
}

// EachMember calls fn for each member of the object raw, which has to be valid
// JSON, in order.
func EachMember(raw []byte, fn func(name string, value json.RawMessage)) error {
	rest, ok := bytes.CutPrefix(space(raw), []byte("{"))
	if !ok {
		return errNoObject
	}
	for rest = space(rest); len(rest) > 0 && rest[0] != '}'; {
		key, value, after, ok := member(rest)
		if !ok {
			return errNoObject
		}
		fn(Text(key), value)
		rest = next(after)
	}
	if len(rest) == 0 {
		return errNoObject
	}
	return nil
}

// Elements calls fn for each element of the array raw, which has to be valid
// JSON. An absent or null array has none.
func Elements(raw json.RawMessage, fn func(json.RawMessage)) error {
	if Absent(raw) {
		return nil
	}
	rest, ok := bytes.CutPrefix(space(raw), []byte("["))
	if !ok {
		return fmt.Errorf("%w: not a list", ErrMalformed)
	}
	for rest = space(rest); len(rest) > 0 && rest[0] != ']'; {
		n := end(rest)
		if n == 0 {
			break
		}
		fn(json.RawMessage(rest[:n]))
		rest = next(rest[n:])
	}
	if len(rest) == 0 || rest[0] != ']' {
		return fmt.Errorf("%w: not a list", ErrMalformed)
	}
	return nil
}

// member splits what begins with a member of an object.
func member(raw []byte) (key, value json.RawMessage, rest []byte, ok bool) {
	n := end(raw)
	if n == 0 || raw[0] != '"' {
		return nil, nil, nil, false
	}
	key = raw[:n]
	raw, ok = bytes.CutPrefix(space(raw[n:]), []byte(":"))
	raw = space(raw)
	n = end(raw)
	return key, raw[:n], raw[n:], ok && n > 0
}

// next is what follows the comma after a value.
func next(raw []byte) []byte {
	raw = space(raw)
	if len(raw) > 0 && raw[0] == ',' {
		return space(raw[1:])
	}
	return raw
}

func space(raw []byte) []byte { return bytes.TrimLeft(raw, " \t\r\n") }

// end is where the value ends with which raw begins; 0 if there is none.
func end(raw []byte) int {
	if len(raw) == 0 {
		return 0
	}
	switch raw[0] {
	case '"':
		return endOfText(raw)
	case '{', '[':
		return endOfNested(raw)
	}
	if n := bytes.IndexAny(raw, ",]} \t\r\n"); n >= 0 {
		return n
	}
	return len(raw)
}

func endOfText(raw []byte) int {
	for i := 1; i < len(raw); {
		n := bytes.IndexByte(raw[i:], '"')
		if n < 0 {
			return 0
		}
		i += n
		escapes := 0
		for raw[i-1-escapes] == '\\' {
			escapes++
		}
		i++
		if escapes%2 == 0 {
			return i
		}
	}
	return 0
}

func endOfNested(raw []byte) int {
	depth := 0
	for i := 0; i < len(raw); {
		n := bytes.IndexAny(raw[i:], `"{}[]`)
		if n < 0 {
			return 0
		}
		i += n
		switch raw[i] {
		case '"':
			text := endOfText(raw[i:])
			if text == 0 {
				return 0
			}
			i += text
			continue
		case '{', '[':
			depth++
		default:
			depth--
		}
		i++
		if depth == 0 {
			return i
		}
	}
	return 0
}
