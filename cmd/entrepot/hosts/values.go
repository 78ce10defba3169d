package hosts

import (
	"maps"
	"path/filepath"
	"slices"
)

// tableOf is a value as a table, nil where it is none.
func tableOf(value any) map[string]any {
	table, _ := value.(map[string]any)
	return table
}

func sortedKeys(table map[string]any) []string { return slices.Sorted(maps.Keys(table)) }

// listHas says whether a value is a list that has the text.
func listHas(value any, text string) bool {
	list, _ := value.([]any)
	return slices.Contains(list, any(text))
}

// splitList are the folders of a value such as config_path.
func splitList(value string) []string {
	if value == "" {
		return nil
	}
	return filepath.SplitList(value)
}
