package manifest

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

// FuzzMembers holds what is read against what encoding/json reads.
func FuzzMembers(f *testing.F) {
	for _, raw := range []string{
		`{}`, ` { } `, `{"a":1}`, "{\"a\" :\t[1, {\"a\":\"}\"}]\r\n,\"b\":null}", `{"a":"\\\"","b":"\\"}`, `{"\u0061":true,"b":-1.5e3}`,
		`[]`, `[1,"a",[],{}]`, ` [ "[" , "]" ] `, `"a"`, `null`, `{"a":{},"b":[[]]}`, `{"":"","a":"é\ud83d"}`, `{"a":1,"a":2}`, `[`, `{"a"`, `{"a":`, `"`, `["\"]`,
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		found, err := Members(raw, "a", "b")
		var elements []json.RawMessage
		listErr := Elements(raw, func(e json.RawMessage) { elements = append(elements, e) })
		if !json.Valid(raw) {
			return // anything but a panic
		}
		var object map[string]json.RawMessage
		switch json.Unmarshal(raw, &object) {
		case nil:
			for _, name := range []string{"a", "b"} {
				if err == nil && object != nil && !bytes.Equal(found[name], object[name]) {
					t.Errorf("%s of %s: %s, want %s", name, raw, found[name], object[name])
				}
			}
			if err != nil && object != nil && !strings.Contains(err.Error(), "twice") {
				t.Errorf("%s: %v", raw, err)
			}
		default:
			if err == nil {
				t.Errorf("%s is an object", raw)
			}
		}
		var list []json.RawMessage
		if isList := json.Unmarshal(raw, &list) == nil; isList != (listErr == nil) || len(list) != len(elements) {
			t.Fatalf("%s: %d elements, %v, want %d", raw, len(elements), listErr, len(list))
		}
		for i := range list {
			if !bytes.Equal(list[i], elements[i]) {
				t.Errorf("%s: element %d is %s, want %s", raw, i, elements[i], list[i])
			}
		}
	})
}

// Megabytes of garbage are looked through, and not copied for each way in which
// they might be a list: clients wait.
func TestGarbageIsReadWithoutACopy(t *testing.T) {
	garbage := []byte(`{"schemaVersion": 2, "manifests": "` + strings.Repeat("x", 5<<20) + `"}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ReadIndex(garbage); err == nil {
		t.Error("it is an index")
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were allocated", took)
	}
}

func TestATextIsWhatADecoderReads(t *testing.T) {
	for _, raw := range []string{
		`""`, `"a"`, `"sha256:ab"`, `"\u0041"`, `"\""`, `"ä"`, "\"\xff\"", `"a\\"`, `"`, ``, `5`, `null`, `["a"]`, `"a" `, "\"\x01\"", "\"\x7f\"",
	} {
		var want string
		if json.Unmarshal([]byte(raw), &want) != nil {
			want = ""
		}
		if got := Text(json.RawMessage(raw)); got != want && json.Valid([]byte(raw)) {
			t.Errorf("%q is %q, want %q", raw, got, want)
		}
	}
}
