package hosts

import (
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// tableEdit sets keys of one table in a TOML document. Remark is a comment that
// is written if the table is new.
type tableEdit struct {
	path   []string
	remark string
	keys   []keyEdit
}

type keyEdit struct {
	key     string
	value   any // as the library decodes it
	written string
}

func (k keyEdit) line() string { return "  " + k.key + " = " + k.written + "\n" }

// header returns the line that opens the table.
func (t tableEdit) header() string {
	var b strings.Builder
	b.WriteString("[" + t.path[0])
	for _, name := range t.path[1:] {
		b.WriteString("." + quote(name))
	}
	return b.String() + "]\n"
}

func (t tableEdit) text() string {
	var b strings.Builder
	b.WriteString(t.remark + t.header())
	for _, key := range t.keys {
		b.WriteString(key.line())
	}
	return b.String()
}

func textOfTables(tables []tableEdit) string {
	var all []string
	for _, table := range tables {
		all = append(all, table.text())
	}
	return strings.Join(all, "\n")
}

// replacement replaces lines, beginning at first, by text.
type replacement struct {
	first, lines int
	text         string
}

// setInTables sets keys in existing tables and adds the other tables at the
// end. The caller has merged the values with existing ones.
func setInTables(runtime string, theirs []byte, tables []tableEdit) ([]byte, error) {
	lines, all := linesOf(theirs), expressions(theirs)
	var changes []replacement
	var sets []setKey
	var added []tableEdit
	for _, table := range tables {
		if len(table.keys) == 0 {
			continue
		}
		for _, key := range table.keys {
			sets = append(sets, setKey{append(slices.Clone(table.path), key.key), key.value})
		}
		i := slices.IndexFunc(all, func(e expression) bool { return e.opens && slices.Equal(e.path, table.path) })
		if i < 0 {
			added = append(added, table)
			continue
		}
		var fresh strings.Builder
		for _, key := range table.keys {
			path := append(slices.Clone(table.path), key.key)
			j := slices.IndexFunc(all, func(e expression) bool { return !e.opens && slices.Equal(e.path, path) })
			if j < 0 {
				fresh.WriteString(key.line())
				continue
			}
			first := all[j].line
			n := valueLines(lines[first-1:])
			changes = append(changes, replacement{first, n, marked(runtime, insteadOf(strings.Join(lines[first-1:first-1+n], ""))+key.line())})
		}
		if fresh.Len() > 0 {
			changes = append(changes, replacement{all[i].line + 1, 0, marked(runtime, fresh.String())})
		}
	}
	lines = replaced(lines, changes)
	content := strings.Join(lines, "")
	if len(added) > 0 {
		content += marked(runtime, textOfTables(added))
	}
	return []byte(content), proveTOML(theirs, []byte(content), sets...)
}

// replaced returns the lines with the replacements made.
func replaced(lines []string, changes []replacement) []string {
	// From the end, so that line numbers before it stay valid. An insertion
	// comes before the replacement of the same line.
	slices.SortStableFunc(changes, func(a, b replacement) int {
		if a.first != b.first {
			return b.first - a.first
		}
		return b.lines - a.lines
	})
	for _, c := range changes {
		lines = slices.Concat(lines[:c.first-1], []string{c.text}, lines[c.first-1+c.lines:])
	}
	return lines
}

// valueLines returns how many lines a key and its value take.
func valueLines(lines []string) int {
	for n := 1; n < len(lines); n++ {
		if toml.Unmarshal([]byte(strings.Join(lines[:n], "")), &map[string]any{}) == nil {
			return n
		}
	}
	return len(lines)
}
