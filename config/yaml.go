package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func parseYAML(content []byte) (*node, *Mistake) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return &node{shape: noValue}, nil
	} else if err != nil {
		return nil, yamlMistake(err)
	}
	var next yaml.Node
	if err := decoder.Decode(&next); err == nil {
		return nil, &Mistake{Line: next.Line, Problem: "contains a second document", Fix: "keep only one document"}
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlMistake(err)
	}
	builder := yamlBuilder{left: maxNodes}
	n := builder.build(&document)
	if builder.left < 0 {
		return nil, &Mistake{Problem: "contains too many values", Fix: "replace its aliases by their values"}
	}
	return n, nil
}

// parseJSON checks that the content is JSON, and parses it as YAML, which
// includes JSON, to get the line numbers.
func parseJSON(content []byte) (*node, *Mistake) {
	if len(bytes.TrimSpace(content)) == 0 {
		return &node{shape: noValue}, nil
	}
	var anything any
	if err := json.Unmarshal(content, &anything); err != nil {
		m := &Mistake{Problem: "not JSON: " + err.Error()}
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			m.Line = 1 + bytes.Count(content[:min(int(syntax.Offset), len(content))], []byte("\n"))
		}
		return nil, m
	}
	// In JSON a tab outside of strings is white space, but YAML forbids it.
	return parseYAML(bytes.ReplaceAll(content, []byte("\t"), []byte(" ")))
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

func yamlMistake(err error) *Mistake {
	m := &Mistake{Problem: "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	if parts := yamlLine.FindStringSubmatch(err.Error()); parts != nil {
		m.Problem = "not YAML: " + parts[2]
		if line, err := strconv.Atoi(parts[1]); err == nil {
			m.Line = line
		}
	}
	return m
}

type yamlBuilder struct {
	left  int
	depth int
}

func (b *yamlBuilder) build(y *yaml.Node) *node {
	b.left--
	b.depth++
	defer func() { b.depth-- }()
	const maxDepth = 100 // an alias may contain itself
	n := &node{line: y.Line}
	if b.left < 0 || b.depth > maxDepth {
		b.left = -1
		return n
	}
	switch y.Kind {
	case yaml.DocumentNode:
		return b.build(y.Content[0])
	case yaml.AliasNode:
		n = b.build(y.Alias)
		n.line = y.Line
	case yaml.SequenceNode:
		n.shape = list
		for _, item := range y.Content {
			n.items = append(n.items, b.build(item))
		}
	case yaml.MappingNode:
		n.shape = table
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			n.entries = append(n.entries, &entry{key: key.Value, line: key.Line, value: b.build(y.Content[i+1])})
		}
	case yaml.ScalarNode:
		if y.Tag != "!!null" {
			n.shape, n.text = scalar, y.Value
		}
	}
	return n
}
