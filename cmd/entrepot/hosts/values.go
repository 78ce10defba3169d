package hosts

import (
	"maps"
	"path/filepath"
	"slices"
)

// tableOf returns a value as a table, or nil if it is not one.
func tableOf(value any) map[string]any {
	table, _ := value.(map[string]any)
	return table
}

func sortedKeys(table map[string]any) []string { return slices.Sorted(maps.Keys(table)) }

// listHas reports whether a value is a list that contains the text.
func listHas(value any, text string) bool {
	list, _ := value.([]any)
	return slices.Contains(list, any(text))
}

// splitList returns the folders in a value such as config_path.
func splitList(value string) []string {
	if value == "" {
		return nil
	}
	return filepath.SplitList(value)
}
