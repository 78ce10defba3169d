package config

import (
	"errors"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

func parseTOML(content []byte) (*node, *Mistake) {
	// Check the whole document first, including what may not be defined twice:
	// the code below relies on it.
	var anything map[string]any
	if err := toml.Unmarshal(content, &anything); err != nil {
		m := &Mistake{Problem: "not TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
		var at *toml.DecodeError
		if errors.As(err, &at) {
			m.Line, _ = at.Position()
		}
		return nil, m
	}
	b := tomlBuilder{root: &node{shape: table, line: 1}, left: maxNodes}
	b.parser.Reset(content)
	b.current = b.root
	for b.parser.NextExpression() {
		b.add(b.parser.Expression())
	}
	if b.left < 0 {
		return nil, &Mistake{Problem: "contains too many values", Fix: "make it smaller"}
	}
	if err := b.parser.Error(); err != nil {
		return nil, &Mistake{Problem: "not TOML: " + err.Error()}
	}
	return b.root, nil
}

type tomlBuilder struct {
	parser  unstable.Parser
	root    *node
	current *node // the table of the following key-values
	left    int
}

func (b *tomlBuilder) add(expression *unstable.Node) {
	keys, line := b.key(expression)
	switch expression.Kind {
	case unstable.Table:
		b.current = b.descend(b.root, keys, line)
	case unstable.ArrayTable:
		last := len(keys) - 1
		parent := b.descend(b.root, keys[:last], line)
		e := parent.find(keys[last])
		if e == nil {
			e = &entry{key: keys[last], line: line, value: &node{shape: list, line: line}}
			parent.entries = append(parent.entries, e)
		}
		b.current = &node{shape: table, line: line}
		e.value.items = append(e.value.items, b.current)
	case unstable.KeyValue:
		b.set(b.current, expression)
	}
}

func (b *tomlBuilder) set(into *node, keyValue *unstable.Node) {
	keys, line := b.key(keyValue)
	last := len(keys) - 1
	into = b.descend(into, keys[:last], line)
	into.entries = append(into.entries, &entry{key: keys[last], line: line, value: b.value(keyValue.Value(), line)})
}

func (b *tomlBuilder) key(n *unstable.Node) (keys []string, line int) {
	for it := n.Key(); it.Next(); {
		if len(keys) == 0 {
			line = b.parser.Shape(it.Node().Raw).Start.Line
		}
		keys = append(keys, string(it.Node().Data))
	}
	return keys, line
}

// descend finds or creates the table at a path. A list on the way stands for
// its last table, as in TOML.
func (b *tomlBuilder) descend(from *node, keys []string, line int) *node {
	for _, key := range keys {
		e := from.find(key)
		if e == nil {
			e = &entry{key: key, line: line, value: &node{shape: table, line: line}}
			from.entries = append(from.entries, e)
		}
		from = e.value
		if from.shape == list && len(from.items) > 0 {
			from = from.items[len(from.items)-1]
		}
	}
	return from
}

func (b *tomlBuilder) value(v *unstable.Node, line int) *node {
	b.left--
	n := &node{line: line}
	switch v.Kind {
	case unstable.Array:
		n.shape = list
		for it := v.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment && b.left >= 0 {
				n.items = append(n.items, b.value(it.Node(), line))
			}
		}
		return n
	case unstable.InlineTable:
		n.shape = table
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue && b.left >= 0 {
				b.set(n, it.Node())
			}
		}
		return n
	case unstable.Integer:
		n.text = strings.ReplaceAll(string(v.Data), "_", "")
	default:
		n.text = string(v.Data)
	}
	n.shape = scalar
	if v.Raw.Length > 0 {
		n.line = b.parser.Shape(v.Raw).Start.Line
	}
	return n
}
