package e2e

import (
	"testing"

	"github.com/docker/libtrust"
)

// signed puts a signature of a key that nobody knows around a manifest of
// schema 1, as registries did.
func signed(t *testing.T, payload []byte) []byte {
	t.Helper()
	key, err := libtrust.GenerateECP256PrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := libtrust.NewJSONSignature(payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := signature.Sign(key); err != nil {
		t.Fatal(err)
	}
	body, err := signature.PrettySignature("signatures")
	if err != nil {
		t.Fatal(err)
	}
	return body
}
