package hosts

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// branch is a part that a YAML document has to contain: a mapping, a list of
// strings or a scalar.
type branch struct {
	key      string
	branches []branch
	list     []string
	scalar   any
}

// textOfBranches writes branches, indented by a number of spaces.
func textOfBranches(all []branch, indent int) string {
	var b strings.Builder
	space := strings.Repeat(" ", indent)
	for _, br := range all {
		b.WriteString(space + br.written() + ":")
		switch {
		case br.branches != nil:
			b.WriteString("\n" + textOfBranches(br.branches, indent+2))
		case br.list != nil:
			b.WriteString("\n")
			for _, item := range br.list {
				b.WriteString(space + "  - " + quote(item) + "\n")
			}
		default:
			text, isText := br.scalar.(string)
			if isText {
				text = quote(text)
			} else {
				text = fmt.Sprint(br.scalar)
			}
			b.WriteString(" " + text + "\n")
		}
	}
	return b.String()
}

// plainKeys need no quotes in any version of YAML.
var plainKeys = []string{"mirrors", "configs", "endpoint", "tls", "ca_file", "insecure_skip_verify"}

func (b branch) written() string {
	if slices.Contains(plainKeys, b.key) {
		return b.key
	}
	return quote(b.key)
}

// putIn sets the branch in a decoded document. Items come first in lists.
func (b branch) putIn(table map[string]any) bool {
	switch there := table[b.key]; {
	case b.branches != nil:
		next, ok := there.(map[string]any)
		if there == nil {
			next, ok = map[string]any{}, true
			table[b.key] = next
		}
		for _, br := range b.branches {
			ok = ok && br.putIn(next)
		}
		return ok
	case b.list != nil:
		items, ok := there.([]any)
		table[b.key] = slices.Concat(anySlice(b.missing(items)), items)
		return ok || there == nil
	default:
		table[b.key] = b.scalar
		return there == nil || there == b.scalar
	}
}

// missing returns the items that are not there yet.
func (b branch) missing(there []any) []string {
	return slices.DeleteFunc(slices.Clone(b.list), func(item string) bool { return slices.Contains(there, any(item)) })
}

// readYAML decodes a document, which may be nil.
func readYAML(content []byte) (map[string]any, error) {
	read := map[string]any{}
	if err := yaml.Unmarshal(content, &read); err != nil {
		return nil, Blocked{Problem: "it is not a YAML mapping: " + strings.TrimPrefix(err.Error(), "yaml: "), Fix: "correct it first"}
	}
	return read, nil
}

// putIntoYAML adds branches to a document as text, at the positions of its
// nodes, so that comments and formatting stay. The result is decoded and
// compared with what was intended.
func putIntoYAML(runtime string, theirs []byte, branches []branch) ([]byte, error) {
	want, err := readYAML(theirs)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(theirs, &document); err != nil {
		return nil, err
	}
	e := yamlEdit{runtime: runtime, lines: linesOf(theirs)}
	root := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	if len(document.Content) > 0 {
		root = document.Content[0]
	}
	if !e.merge(root, branches, -2, len(e.lines)) {
		return nil, errUnproven
	}
	content := e.applied()
	for _, b := range branches {
		if !b.putIn(want) {
			return nil, errUnproven
		}
	}
	if got, err := readYAML(content); err != nil || !reflect.DeepEqual(got, want) {
		return nil, errUnproven
	}
	return content, nil
}

type yamlEdit struct {
	runtime string
	lines   []string
	changes []replacement
}

// merge adds branches to a mapping. If it is empty, they go after the line of
// its key, indented below it.
func (e *yamlEdit) merge(node *yaml.Node, branches []branch, indent, line int) bool {
	if node.Tag == "!!null" && node.Value == "" {
		e.insert(line+1, textOfBranches(branches, indent+2))
		return true
	}
	if node.Kind != yaml.MappingNode || node.Style&yaml.FlowStyle != 0 || len(node.Content) == 0 {
		return false
	}
	var fresh []branch
	for _, b := range branches {
		i := slices.IndexFunc(node.Content, func(n *yaml.Node) bool { return n.Value == b.key })
		if i < 0 || i%2 == 1 {
			fresh = append(fresh, b)
			continue
		}
		key, value := node.Content[i], node.Content[i+1]
		ok := true
		switch {
		case b.branches != nil:
			ok = e.merge(value, b.branches, key.Column-1, key.Line)
		case b.list != nil:
			ok = e.prepend(b, key, value)
		}
		if !ok {
			return false
		}
	}
	if len(fresh) == 0 {
		return true
	}
	first := node.Content[0]
	at := above(e.lines, first.Line)
	if indent < 0 { // add to the end of the document
		at = len(e.lines) + 1
	}
	e.insert(at, textOfBranches(fresh, first.Column-1))
	return true
}

// prepend adds items at the start of a list.
func (e *yamlEdit) prepend(b branch, key, value *yaml.Node) bool {
	var there []any
	for _, item := range value.Content {
		there = append(there, item.Value)
	}
	items := b.missing(there)
	switch {
	case len(items) == 0:
		return true
	case value.Tag == "!!null" && value.Value == "":
		e.insert(key.Line+1, itemsAt(items, key.Column+1))
		return true
	case value.Kind != yaml.SequenceNode:
		return false
	case value.Style&yaml.FlowStyle == 0:
		e.insert(above(e.lines, value.Line), itemsAt(items, value.Column-1))
		return true
	}
	// A list on one line is replaced as a whole, because marks can't be put
	// inside it.
	old := e.lines[key.Line-1]
	at := value.Column - 1
	if key.Line != value.Line || !strings.HasPrefix(old[min(at, len(old)):], "[") {
		return false
	}
	list := strings.TrimSuffix(quoteAll(items), "]")
	if len(there) > 0 {
		list += ", "
	}
	e.changes = append(e.changes, replacement{key.Line, 1, marked(e.runtime, insteadOf(old)+old[:at]+list+strings.TrimLeft(old[at+1:], " "))})
	return true
}

func itemsAt(items []string, indent int) string {
	var b strings.Builder
	for _, item := range items {
		b.WriteString(strings.Repeat(" ", indent) + "- " + quote(item) + "\n")
	}
	return b.String()
}

func (e *yamlEdit) insert(line int, text string) {
	e.changes = append(e.changes, replacement{line, 0, marked(e.runtime, text)})
}

func (e *yamlEdit) applied() []byte { return []byte(strings.Join(replaced(e.lines, e.changes), "")) }
