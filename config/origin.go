package config

import "strconv"

// Kind is the kind of an origin, from weakest to strongest.
type Kind int

// The kinds of origins.
const (
	FromDefault Kind = iota
	FromFile
	FromEnvironment
	FromFlag
)

// Origin is where a value comes from. The zero Origin is the default.
type Origin struct {
	Kind Kind
	Name string // the file, the variable, or the flag without its dashes
	Line int    // in the file
}

// Origins maps each key's path to the origin of its value. Keys that are
// missing have their default.
type Origins map[string]Origin

// String returns "default", "FILE:LINE", "env NAME" or "flag --NAME".
func (o Origin) String() string {
	switch o.Kind {
	case FromFile:
		return o.text()
	case FromEnvironment:
		return "env " + o.Name
	case FromFlag:
		return "flag " + o.text()
	default:
		return "default"
	}
}

func (o Origin) text() string {
	switch o.Kind {
	case FromFile:
		if o.Line == 0 {
			return o.Name
		}
		return o.Name + ":" + strconv.Itoa(o.Line)
	case FromFlag:
		return "--" + o.Name
	default:
		return o.Name
	}
}
