package hosts

import (
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// tableEdit sets keys of one table of a TOML document. Remark is a comment for
// where the table is new.
type tableEdit struct {
	path   []string
	remark string
	keys   []keyEdit
}

type keyEdit struct {
	key     string
	value   any // as the library reads it
	written string
}

func (k keyEdit) line() string { return "  " + k.key + " = " + k.written + "\n" }

// header is the line that opens the table.
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

// replacement is lines of ours in place of lines of theirs, before the first.
type replacement struct {
	first, lines int
	text         string
}

// setInTables sets keys in tables that are there, and puts the others at the
// end. The caller has merged the values with those that are there.
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

// replaced are the lines with what is put in place of some of them.
func replaced(lines []string, changes []replacement) []string {
	// From the end, so that the lines before keep their numbers. What replaces
	// nothing comes before what replaces the same line.
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

// valueLines is how many lines a key takes with its value.
func valueLines(lines []string) int {
	for n := 1; n < len(lines); n++ {
		if toml.Unmarshal([]byte(strings.Join(lines[:n], "")), &map[string]any{}) == nil {
			return n
		}
	}
	return len(lines)
}
