package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// settings converts a file's tree to the maps that viper merges, and reports
// everything that is not in the schema. Single values stay text, so that files,
// variables and flags are parsed in the same way.
func (r *report) settings(file string, n *node, t reflect.Type, path string) any {
	place := Origin{Kind: FromFile, Name: file, Line: n.line}
	wrongShape := func(want, fix string) any {
		r.addAt(place, path, "is "+n.shape.String()+", must be "+want, fix)
		return nil
	}
	switch {
	case n.shape == noValue:
		return nil
	case isTable(t):
		if n.shape != table {
			return wrongShape("a table", "known here: "+strings.Join(keys(t), ", "))
		}
		return r.tableSettings(file, n, t, path)
	case t.Kind() == reflect.Slice:
		if n.shape != list {
			fix := "write [" + n.text + "]"
			if isTableList(t) {
				fix = "write a list of tables, each with a name"
			}
			return wrongShape("a list", fix)
		}
		var items []any
		for i, item := range n.items {
			r.places[at(path, i)] = Origin{Kind: FromFile, Name: file, Line: item.line}
			if value := r.settings(file, item, t.Elem(), at(path, i)); value != nil {
				items = append(items, value)
			} else if isTable(t.Elem()) {
				// Keep it, so that the indices of the following items do not change.
				items = append(items, map[string]any{})
			}
		}
		if items == nil {
			return []any{}
		}
		return items
	case n.shape != scalar:
		return wrongShape("a single value", "")
	}
	return n.text
}

func (r *report) tableSettings(file string, n *node, t reflect.Type, path string) any {
	values := map[string]any{}
	known := map[string]reflect.Type{}
	for _, f := range fields(t) {
		known[f.key] = f.typ
	}
	for _, e := range n.entries {
		key := join(path, e.key)
		place := Origin{Kind: FromFile, Name: file, Line: e.line}
		typ, ok := known[e.key]
		if !ok {
			fix := "known here: " + strings.Join(keys(t), ", ")
			if meant := suggestKey(path, e.key, t); meant != "" {
				fix = "did you mean " + meant + "?"
			}
			r.addAt(place, key, "unknown key", fix)
			continue
		}
		if first := n.find(e.key); first != e {
			r.addAt(place, key, fmt.Sprintf("is set twice, first on line %d", first.line), "keep only one of them")
			continue
		}
		if e.value.shape == noValue {
			continue
		}
		r.places[key] = place
		if value := r.settings(file, e.value, typ, key); value != nil {
			values[e.key] = value
		}
	}
	return values
}

// decode decodes merged settings into a value of the schema.
func (r *report) decode(settings any, v reflect.Value, path string) {
	switch {
	case isTable(v.Type()):
		values, _ := settings.(map[string]any)
		for _, f := range fields(v.Type()) {
			if value, ok := values[f.key]; ok {
				r.decode(value, v.Field(f.index), join(path, f.key))
			}
		}
	case v.Kind() == reflect.Slice:
		items, ok := settings.([]any)
		if text, isText := settings.(string); !ok && isText {
			if items = itemsOf(text); text != "" && len(items) == 0 {
				r.add(path, quoted(text)+" has an empty item", "write the items of the list, or unset it")
			}
			for i, item := range items {
				if item := item.(string); strings.ContainsFunc(item, unicode.IsSpace) {
					r.add(at(path, i), quoted(item)+" contains a space", "separate items by commas: "+strings.Join(strings.Fields(item), ","))
				}
			}
		}
		all := reflect.MakeSlice(v.Type(), len(items), len(items))
		for i, item := range items {
			if isTableList(v.Type()) {
				all.Index(i).Set(reflect.ValueOf(defaultUpstream()))
			}
			r.decode(item, all.Index(i), at(path, i))
		}
		v.Set(all)
	default:
		r.decodeText(fmt.Sprint(settings), v, path)
	}
}

// itemsOf splits a list in a variable, whose items are separated by commas.
func itemsOf(text string) []any {
	var items []any
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func (r *report) decodeText(text string, v reflect.Value, path string) {
	switch v.Interface().(type) {
	case Size:
		size, err := ParseSize(text)
		if m := (Mistake{}); errors.As(err, &m) {
			r.add(path, m.Problem, m.Fix)
			return
		}
		v.Set(reflect.ValueOf(size))
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			r.add(path, quoted(text)+" is not a duration", suggestDuration(text))
			return
		}
		v.Set(reflect.ValueOf(d))
	case bool:
		if text != "true" && text != "false" {
			r.add(path, quoted(text)+" is neither true nor false", "write true or false")
			return
		}
		v.SetBool(text == "true")
	case int:
		number, err := strconv.Atoi(text)
		if err != nil {
			r.add(path, quoted(text)+" is not a whole number", "write a number such as 32")
			return
		}
		v.SetInt(int64(number))
	default:
		v.SetString(text)
	}
}

func suggestDuration(text string) string {
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return "did you mean " + text + "s?"
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100_000 {
			return "did you mean " + strconv.Itoa(24*n) + "h?"
		}
	}
	return "write a duration such as 500ms, 30s, 1m30s or 2h"
}
