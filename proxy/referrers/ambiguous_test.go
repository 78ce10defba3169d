package referrers

import (
	"errors"
	"testing"
)

func TestWhatCanBeReadInTwoWays(t *testing.T) {
	entry := `{"mediaType":"a/b","digest":"` + one + `","size":1}`
	for raw, ambiguous := range map[string]bool{
		`{"schemaVersion":2,"config":` + entry + `,"layers":[` + entry + `]}`:               false,
		`{"schemaVersion":2,"layers":[` + entry + `],"x":1,"X":2,"x":3}`:                    false,
		`{"layers":[{"digest":"` + one + `","x":1,"X":2}],"annotations":{"a":"1","A":"2"}}`: false,
		`{"layers":"Layers"}`:                                        false,
		`{"layers":[1,null,"Digest",[{"Digest":1}]]}`:                false,
		`{"layers":[` + entry + `],"layers":[]}`:                     true,
		`{"layers":[` + entry + `],"Layers":[]}`:                     true,
		`{"Layers":[` + entry + `]}`:                                 true,
		`{"LAYERS":null}`:                                            true,
		`{"\u004cayers":[]}`:                                         true,
		`{"\u006cayers":[],"layers":[]}`:                             true,
		"{\"layer\u017f\":[]}":                                       true,
		`{"mediaType":"a/b","MediaType":"c/d"}`:                      true,
		`{"Config":` + entry + `}`:                                   true,
		`{"config":{"digest":"` + one + `","Digest":"` + two + `"}}`: true,
		`{"layers":[` + entry + `,{"digest":"` + one + `","digest":"` + two + `"}]}`: true,
		`{"layers":[{"digest":"` + one + `","URLs":["https://a.b"]}]}`:               true,
		`{"fsLayers":[{"blobSum":"` + one + `","blobsum":"` + two + `"}]}`:           true,
		`{"manifests":[{"DIGEST":"` + one + `"}]}`:                                   true,
		`{"blobs":[{"Size":1}]}`: true,
		`{"subject":{"digest":"` + one + `","Digest":"` + two + `"}}`: true,
		`{"layers":[`: false, // it is no manifest
		`[]`:          false,
	} {
		if err := CheckReading(ociManifest, Parse([]byte(raw))); errors.Is(err, ErrMalformed) != ambiguous || !ambiguous && err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if err := CheckReading("application/vnd.example+json", Parse([]byte(raw))); err != nil {
			t.Errorf("of an unknown kind, %s: %v", raw, err)
		}
	}
}
