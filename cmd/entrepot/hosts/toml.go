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

// No library writes TOML back with its comments. So ours is put in as text, and
// what comes of it is read by the library and held against what was meant.

// readTOML reads a document, nil too.
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
		return nil, Blocked{Problem: problem, Mend: "mend it first"}
	}
	return read, nil
}

// errUnproven means that text which was put into a document does not mean what
// it should.
var errUnproven = errors.New("what is there is written in a form that nothing can be put into")

// proveTOML makes sure that a document means what another does, with values set
// at the paths of keys, and nothing else.
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

// setKey is a value at a path of keys, in the types that the library reads.
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

// lookUp finds what is at a path of keys.
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

// tableAt is the table at a path of keys, nil where there is none.
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

// expressions are all of a document that [readTOML] reads.
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

// linesOf are a document's lines with their ends; the last has one in any case.
func linesOf(content []byte) []string {
	lines := slices.Collect(strings.Lines(string(content)))
	if last := len(lines) - 1; last >= 0 && !strings.HasSuffix(lines[last], "\n") {
		lines[last] += "\n"
	}
	return lines
}

// above is the first line of the comments that stand right above a line, so
// that what is put there does not come between the two.
func above(lines []string, line int) int {
	for line > 1 && strings.HasPrefix(strings.TrimSpace(lines[line-2]), "#") {
		line--
	}
	return line
}

// putBefore puts text before a line; one past the last is the end.
func putBefore(lines []string, line int, text string) []byte {
	return []byte(strings.Join(lines[:line-1], "") + text + strings.Join(lines[line-1:], ""))
}

// quote writes a string as JSON does, which TOML and YAML read as well.
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
