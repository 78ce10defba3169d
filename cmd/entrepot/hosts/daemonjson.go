package hosts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// JSON has no comments. The items added to lists are recorded in a separate
// file, and the rest of the text stays as it is.

// putIntoList adds strings at the start of the list under a key of an object,
// except those that are already in it. It returns the strings that it added.
func putIntoList(content []byte, key string, items []string) (after []byte, put []string, err error) {
	values, err := readObject(content)
	if err != nil {
		return nil, nil, err
	}
	list, err := listOf(values, key)
	if err != nil {
		return nil, nil, err
	}
	for _, item := range items {
		if !slices.ContainsFunc(list, func(there string) bool { return sameMirror(there, item) }) {
			put = append(put, item)
		}
	}
	if len(put) == 0 {
		return content, nil, nil
	}
	var quoted []string
	for _, item := range put {
		quoted = append(quoted, quote(item))
	}
	switch at, ok := spanOf(content, key); {
	case len(bytes.TrimSpace(content)) == 0:
		after = []byte("{\n  " + quote(key) + ": [\n    " + strings.Join(quoted, ",\n    ") + "\n  ]\n}\n")
	case ok && len(list) == 0:
		after = splice(content, at, "["+strings.Join(quoted, ", ")+"]")
	case ok:
		start := at.start + 1
		gap := content[start : start+len(content[start:])-len(bytes.TrimLeft(content[start:], " \t\r\n"))]
		text := strings.Join(quoted, ","+orSpace(gap)) + ","
		if len(gap) == 0 {
			text += " "
		}
		after = splice(content, span{start + len(gap), start + len(gap)}, text+string(gap))
	default:
		start := bytes.IndexByte(content, '{') + 1
		rest := content[start:]
		gap := rest[:len(rest)-len(bytes.TrimLeft(rest, " \t\r\n"))]
		text := quote(key) + ": [" + strings.Join(quoted, ", ") + "]"
		switch {
		case len(values) > 0:
			after = splice(content, span{start + len(gap), start + len(gap)}, text+","+orSpace(gap))
		default:
			after = splice(content, span{start, start + len(gap)}, "\n  "+text+"\n")
		}
	}
	want := maps.Clone(values)
	want[key] = append(anySlice(put), anySlice(list)...)
	if got, err := readObject(after); err != nil || !reflect.DeepEqual(got, want) {
		return nil, nil, errUnproven
	}
	return after, put, nil
}

// sameMirror compares mirrors as Docker does.
func sameMirror(a, b string) bool { return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/") }

func orSpace(gap []byte) string {
	if len(gap) == 0 {
		return " "
	}
	return string(gap)
}

// removeFromLists removes strings from the lists of an object, and keys whose
// list is then empty. It returns nil if no key is left.
func removeFromLists(content []byte, lists map[string][]string) ([]byte, error) {
	values, err := readObject(content)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(lists)) {
		list, err := listOf(values, key)
		if err != nil {
			return nil, err
		}
		left := slices.DeleteFunc(slices.Clone(list), func(item string) bool { return slices.Contains(lists[key], item) })
		if len(left) == len(list) {
			continue
		}
		at, _ := spanOf(content, key)
		if len(left) > 0 {
			var quoted []string
			for _, item := range left {
				quoted = append(quoted, quote(item))
			}
			content = splice(content, at, "["+strings.Join(quoted, ", ")+"]")
			values[key] = anySlice(left)
			continue
		}
		content = splice(content, withItsComma(content, at, key), "")
		delete(values, key)
	}
	if got, err := readObject(content); err != nil || !reflect.DeepEqual(got, values) {
		return nil, errUnproven
	}
	if len(values) == 0 {
		return nil, nil
	}
	return content, nil
}

// readObject reads a JSON object. An empty file counts as an empty object.
func readObject(content []byte) (map[string]any, error) {
	values := map[string]any{}
	if len(bytes.TrimSpace(content)) == 0 {
		return values, nil
	}
	if err := noMark(content); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	if err := decoder.Decode(&values); err != nil || values == nil {
		return nil, Blocked{Problem: fmt.Sprintf("it is not a JSON object (%v)", err), Fix: "correct it first"}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, Blocked{Problem: "something follows its JSON object", Fix: "correct it first"}
	}
	return values, nil
}

// noMark rejects a file that begins with a byte order mark, as some editors
// write it. Other errors would not make it visible.
func noMark(content []byte) error {
	if bytes.HasPrefix(content, []byte("\xef\xbb\xbf")) {
		return Blocked{Problem: "it begins with a byte order mark", Fix: "save it as UTF-8 without one"}
	}
	return nil
}

// listOf returns a key's value as a list of strings.
func listOf(values map[string]any, key string) ([]string, error) {
	value, ok := values[key]
	if !ok || value == nil {
		return nil, nil
	}
	items, ok := value.([]any)
	var list []string
	for _, item := range items {
		text, isText := item.(string)
		ok = ok && isText
		list = append(list, text)
	}
	if !ok {
		return nil, Blocked{Problem: quote(key) + " is not a list of strings", Fix: "correct it first"}
	}
	return list, nil
}

// span is a range of a text.
type span struct{ start, end int }

func splice(content []byte, at span, text string) []byte {
	return slices.Concat(content[:at.start], []byte(text), content[at.end:])
}

// spanOf returns where the value of an object's key is. If the key is there
// twice, the last one counts.
func spanOf(content []byte, key string) (at span, ok bool) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	if _, err := decoder.Token(); err != nil {
		return at, false
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return at, false
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return at, false
		}
		if name == key {
			end := int(decoder.InputOffset())
			at, ok = span{end - len(value), end}, true
		}
	}
	return at, ok
}

// withItsComma returns the span of a key with its value and its comma.
func withItsComma(content []byte, at span, key string) span {
	at.start = bytes.LastIndex(content[:at.start], []byte(quote(key)))
	rest := content[at.end:]
	if after := bytes.TrimLeft(rest, " \t\r\n"); len(after) > 0 && after[0] == ',' {
		at.end += len(rest) - len(after) + 1
		rest = content[at.end:]
		at.end += len(rest) - len(bytes.TrimLeft(rest, " \t\r\n"))
		return at
	}
	before := bytes.TrimRight(content[:at.start], " \t\r\n")
	if len(before) > 0 && before[len(before)-1] == ',' {
		at.start = len(before) - 1
	}
	return at
}
