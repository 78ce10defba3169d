package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"
)

// schemaField is one key of a table, from the key tags of the structs.
type schemaField struct {
	key   string
	index int
	typ   reflect.Type
}

func fields(t reflect.Type) []schemaField {
	var all []schemaField
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("key"); key != "" {
			all = append(all, schemaField{key: key, index: i, typ: t.Field(i).Type})
		}
	}
	return all
}

func keys(t reflect.Type) []string {
	var all []string
	for _, f := range fields(t) {
		all = append(all, f.key)
	}
	return all
}

// isTable reports whether values of a type are tables of further keys.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[Size]()
}

func isTableList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && isTable(t.Elem())
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func at(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// leaves calls visit for every key that has a value, with its path.
func leaves(v reflect.Value, path string, visit func(path string, v reflect.Value)) {
	switch {
	case isTable(v.Type()):
		for _, f := range fields(v.Type()) {
			leaves(v.Field(f.index), join(path, f.key), visit)
		}
	case isTableList(v.Type()):
		for i := range v.Len() {
			leaves(v.Index(i), at(path, i), visit)
		}
	default:
		visit(path, v)
	}
}

// textOf formats a single value as in a configuration file, and a list as in a
// variable.
func textOf(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case Size:
		return value.String()
	case time.Duration:
		return durationText(value)
	case bool:
		return strconv.FormatBool(value)
	case int:
		return strconv.Itoa(value)
	case []string:
		return strings.Join(value, ",")
	default:
		return v.String()
	}
}

// durationText returns the shortest form of a duration: 1m instead of 1m0s.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// suggestKey returns the path of the key that was probably meant by an unknown
// one: a neighbour, or else a key of that name in another table.
func suggestKey(path, unknown string, t reflect.Type) string {
	if near := Nearest(unknown, keys(t)); near != "" {
		return join(path, near)
	}
	var found string
	search := func(leaf string, _ reflect.Value) {
		if found == "" && strings.HasSuffix(leaf, "."+unknown) {
			found = leaf
		}
	}
	leaves(reflect.New(t).Elem(), path, search)
	if found == "" {
		leaves(reflect.ValueOf(Config{Upstreams: make([]Upstream, 1)}), "", search)
		found = strings.ReplaceAll(found, "[0]", "[]")
	}
	return found
}
