package config

import "strconv"

// Kind is a kind of place that values come from, from weakest to strongest.
type Kind int

// The places that values come from.
const (
	FromDefault Kind = iota
	FromFile
	FromEnvironment
	FromFlag
)

// Origin is where a value came from. The zero Origin is the default.
type Origin struct {
	Kind Kind
	Name string // the file, the variable, or the flag without its dashes
	Line int    // in the file
}

// Origins say of each key's path where its value came from. A key that is not
// there has its default.
type Origins map[string]Origin

// String is "default", "FILE:LINE", "env NAME" or "flag --NAME".
func (o Origin) String() string {
	switch o.Kind {
	case FromFile:
		return o.place()
	case FromEnvironment:
		return "env " + o.Name
	case FromFlag:
		return "flag " + o.place()
	default:
		return "default"
	}
}

func (o Origin) place() string {
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
