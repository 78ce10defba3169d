package config

import (
	"path/filepath"
	"strings"
)

// shape is the shape of a value in a file.
type shape int

const (
	noValue shape = iota // a key without a value
	scalar
	list
	table
)

func (s shape) String() string {
	switch s {
	case scalar:
		return "a single value"
	case list:
		return "a list"
	case table:
		return "a table"
	default:
		return "nothing"
	}
}

// node is a value in a configuration file of any format, with its line.
type node struct {
	shape   shape
	line    int
	text    string   // of a scalar
	items   []*node  // of a list
	entries []*entry // of a table, in the order of the file
}

type entry struct {
	key   string
	line  int
	value *node
}

func (n *node) find(key string) *entry {
	for _, e := range n.entries {
		if e.key == key {
			return e
		}
	}
	return nil
}

// maxNodes limits the number of values in a file. Aliases in YAML can make a
// small file expand to a huge one.
const maxNodes = 100_000

// parse parses a file in the format that its extension names.
func parse(name string, content []byte) (*node, *Mistake) {
	switch ending := strings.ToLower(filepath.Ext(name)); ending {
	case ".yaml", ".yml":
		return parseYAML(content)
	case ".json":
		return parseJSON(content)
	case ".toml":
		return parseTOML(content)
	case "":
		return nil, &Mistake{Problem: "has no file name extension that tells its format", Fix: "name it .yaml, .toml or .json"}
	default:
		return nil, &Mistake{Problem: "unknown format " + quoted(ending), Fix: "name it .yaml, .toml or .json"}
	}
}
