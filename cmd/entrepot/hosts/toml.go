package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// No library writes TOML and preserves comments. So settings are added as text,
// and the result is decoded and compared with what was intended.

// readTOML decodes a document, which may be nil.
func readTOML(content []byte) (map[string]any, error) {
	if err := noMark(content); err != nil {
		return nil, err
	}
	read := map[string]any{}
	if err := toml.Unmarshal(content, &read); err != nil {
		problem := "it is not TOML: " + strings.TrimPrefix(err.Error(), "toml: ")
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			problem = fmt.Sprintf("line %d is not TOML: %s", line, strings.TrimPrefix(err.Error(), "toml: "))
		}
		return nil, Blocked{Problem: problem, Fix: "correct it first"}
	}
	return read, nil
}

// errUnproven means that a document with text added does not mean what it
// should.
var errUnproven = errors.New("the file is written in a form to which nothing can be added")

// proveTOML checks that a document means the same as another with values set at
// the paths of keys, and nothing else.
func proveTOML(before, after []byte, sets ...setKey) error {
	want, err := readTOML(before)
	if err != nil {
		return err
	}
	for _, set := range sets {
		if !set.in(want) {
			return errUnproven
		}
	}
	got, err := readTOML(after)
	if err != nil || !reflect.DeepEqual(got, want) {
		return errUnproven
	}
	return nil
}

// setKey is a value at a path of keys, in the types that the library decodes
// to.
type setKey struct {
	path  []string
	value any
}

func (s setKey) in(table map[string]any) bool {
	for _, key := range s.path[:len(s.path)-1] {
		next, ok := table[key]
		if !ok {
			next = map[string]any{}
			table[key] = next
		}
		if table, ok = next.(map[string]any); !ok {
			return false
		}
	}
	table[s.path[len(s.path)-1]] = s.value
	return true
}

// lookUp returns the value at a path of keys.
func lookUp(table map[string]any, path ...string) any {
	for _, key := range path[:len(path)-1] {
		next, ok := table[key].(map[string]any)
		if !ok {
			return nil
		}
		table = next
	}
	return table[path[len(path)-1]]
}

// tableAt returns the table at a path of keys, or nil.
func tableAt(table map[string]any, path ...string) map[string]any {
	found, _ := lookUp(table, path...).(map[string]any)
	return found
}

// expression is a line of a document that opens a table or sets a key.
type expression struct {
	line  int // the first is 1
	opens bool
	path  []string // of the table, or of the key from the root
}

// expressions returns all expressions of a document that [readTOML] accepts.
func expressions(content []byte) []expression {
	var parser unstable.Parser
	parser.Reset(content)
	var all []expression
	var table []string
	for parser.NextExpression() {
		e := parser.Expression()
		var keys []string
		line := 0
		if e.Kind != unstable.Table && e.Kind != unstable.ArrayTable && e.Kind != unstable.KeyValue {
			continue
		}
		for it := e.Key(); it.Next(); {
			if line == 0 {
				line = parser.Shape(it.Node().Raw).Start.Line
			}
			keys = append(keys, string(it.Node().Data))
		}
		if e.Kind == unstable.KeyValue {
			all = append(all, expression{line: line, path: slices.Concat(table, keys)})
			continue
		}
		table = keys
		all = append(all, expression{line: line, opens: true, path: keys})
	}
	return all
}

// linesOf returns a document's lines with their ends. The last line always gets
// one.
func linesOf(content []byte) []string {
	lines := slices.Collect(strings.Lines(string(content)))
	if last := len(lines) - 1; last >= 0 && !strings.HasSuffix(lines[last], "\n") {
		lines[last] += "\n"
	}
	return lines
}

// above returns the first line of the comments directly above a line, so that
// an insertion does not separate the two.
func above(lines []string, line int) int {
	for line > 1 && strings.HasPrefix(strings.TrimSpace(lines[line-2]), "#") {
		line--
	}
	return line
}

// putBefore inserts text before a line. One past the last line is the end.
func putBefore(lines []string, line int, text string) []byte {
	return []byte(strings.Join(lines[:line-1], "") + text + strings.Join(lines[line-1:], ""))
}

// quote writes a string as JSON does, which is also valid TOML and YAML.
func quote(text string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		return `""` // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func quoteAll(texts []string) string {
	var all []string
	for _, text := range texts {
		all = append(all, quote(text))
	}
	return "[" + strings.Join(all, ", ") + "]"
}
