package config

import (
	"encoding/json"
	"io"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// WriteYAML writes a configuration as a file that loads to the same one, each
// value with where it came from in a comment. No secret is in it: passwords
// are in files, whose names are told.
func WriteYAML(w io.Writer, cfg Config, origins Origins) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(yamlOf(reflect.ValueOf(cfg), "", origins)); err != nil {
		return err
	}
	return encoder.Close()
}

func yamlOf(v reflect.Value, path string, origins Origins) *yaml.Node {
	comment := origins[path].String()
	switch {
	case isTable(v.Type()):
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range fields(v.Type()) {
			key := &yaml.Node{Kind: yaml.ScalarNode, Value: f.key}
			n.Content = append(n.Content, key, yamlOf(v.Field(f.index), join(path, f.key), origins))
		}
		return n
	case isTableList(v.Type()):
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, yamlOf(v.Index(i), at(path, i), origins))
		}
		return n
	case v.Kind() == reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, LineComment: comment}
		for i := range v.Len() {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v.Index(i).String()})
		}
		return n
	default:
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: textOf(v), LineComment: comment}
		if v.Kind() == reflect.String {
			n.Tag = "!!str" // quotes it where it would read as something else
		}
		return n
	}
}

// WriteJSON writes an object of two: config, which loads as a file of its own
// to the same configuration, and origins, which says of each key's path where
// its value came from.
func WriteJSON(w io.Writer, cfg Config, origins Origins) error {
	from := map[string]string{}
	leaves(reflect.ValueOf(cfg), "", func(path string, _ reflect.Value) { from[path] = origins[path].String() })
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(map[string]any{"config": jsonOf(reflect.ValueOf(cfg)), "origins": from})
}

func jsonOf(v reflect.Value) any {
	switch {
	case isTable(v.Type()):
		values := map[string]any{}
		for _, f := range fields(v.Type()) {
			values[f.key] = jsonOf(v.Field(f.index))
		}
		return values
	case v.Kind() == reflect.Slice:
		items := make([]any, v.Len())
		for i := range items {
			items[i] = jsonOf(v.Index(i))
		}
		return items
	case v.Kind() == reflect.Bool || v.Kind() == reflect.Int:
		return v.Interface()
	default:
		return textOf(v)
	}
}
