package config

import (
	"path/filepath"
	"strings"
)

// shape is what kind of value stands in a file.
type shape int

const (
	nothing shape = iota // a key without a value
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
		return "a table of keys"
	default:
		return "nothing"
	}
}

// node is a value in a configuration file, whatever the file's format, with
// the line it stands on.
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

// maxNodes bounds what a file may hold. Aliases in YAML can make a small file
// stand for a huge one.
const maxNodes = 100_000

// parse reads a file's content by the ending of its name.
func parse(name string, content []byte) (*node, *Mistake) {
	switch ending := strings.ToLower(filepath.Ext(name)); ending {
	case ".yaml", ".yml":
		return parseYAML(content)
	case ".json":
		return parseJSON(content)
	case ".toml":
		return parseTOML(content)
	case "":
		return nil, &Mistake{Problem: "its name has no ending that tells its format", Mend: "name it .yaml, .toml or .json"}
	default:
		return nil, &Mistake{Problem: "unknown format " + quoted(ending), Mend: "name it .yaml, .toml or .json"}
	}
}
