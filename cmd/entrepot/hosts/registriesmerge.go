package hosts

import (
	"reflect"
	"slices"
	"strings"
)

// addition is mirrors for one entry of a registries.conf.
type addition struct {
	prefix  string
	mirrors []location
}

// confEdit adds mirrors before those of existing entries. Everything else in an
// entry stays, including mirror-by-digest-only.
type confEdit []addition

func (e confEdit) edit(theirs []byte) (Change, error) {
	content := theirs
	for _, add := range e {
		after, err := add.put(content)
		if err != nil {
			return Change{}, err
		}
		content = after
	}
	return Change{Content: content, Undo: Undo{Kind: undoMarked}}, nil
}

func (a addition) put(content []byte) ([]byte, error) {
	want, err := readTOML(content)
	if err != nil {
		return nil, err
	}
	list, _ := want["registry"].([]any)
	at := slices.IndexFunc(list, func(item any) bool { return prefixOf(tableOf(item)) == a.prefix })
	entry := tableOf(list[at])
	there, _ := entry["mirror"].([]any)
	var missing []location
	var put []any
	for _, mirror := range a.mirrors {
		if !slices.ContainsFunc(there, func(item any) bool { return tableOf(item)["location"] == mirror.at }) {
			missing = append(missing, mirror)
			put = append(put, mirror.value())
		}
	}
	if len(put) == 0 {
		return content, nil
	}
	entry["mirror"] = append(put, there...)
	text := strings.TrimPrefix(textOf(missing), "\n")
	lines := linesOf(content)
	line := len(lines) + 1
	index := -1
	for _, e := range expressions(content) {
		switch {
		case !e.opens:
			continue
		case slices.Equal(e.path, []string{"registry"}):
			index++
		}
		if index > at || index == at && len(e.path) > 1 || index == at && e.path[0] != "registry" {
			line = above(lines, e.line)
			break
		}
	}
	after := putBefore(lines, line, marked("podman", text))
	if got, err := readTOML(after); err != nil || !reflect.DeepEqual(got, want) {
		return nil, Blocked{Problem: errUnproven.Error(), Fix: "add this to the entry for " + a.prefix + " by hand, before its mirrors", Lines: strings.TrimRight(text, "\n")}
	}
	return after, nil
}
