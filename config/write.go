package config

import (
	"encoding/json"
	"io"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// WriteYAML writes a configuration file that loads to the same configuration,
// with each value's origin in a comment. It contains no secrets: passwords are
// in files, of which only the names are written.
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
			n.Tag = "!!str" // quoted if it would be parsed as another type
		}
		return n
	}
}

// WriteJSON writes an object with two members: config, a configuration file
// that loads to the same configuration, and origins, which maps each key's path
// to its origin.
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
