package hosts

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// checkFiles checks that the certificate files contain certificates. A runtime
// that can't read one fails the pull instead of falling back to the registry.
func (m Mirror) checkFiles() error {
	seen := map[string]bool{"": true}
	var wrong []error
	check := func(file, of string) {
		if seen[file] {
			return
		}
		seen[file] = true
		pem, err := os.ReadFile(file)
		switch {
		case err != nil:
			wrong = append(wrong, fmt.Errorf("certificates of %s: %w", of, err))
		case !x509.NewCertPool().AppendCertsFromPEM(pem):
			wrong = append(wrong, fmt.Errorf("certificates of %s: %s contains no certificate", of, file))
		}
	}
	check(m.CAFile, "entrepot (--ca)")
	for _, r := range m.Registries {
		check(r.Server.CAFile, r.Upstream+" (its tls.ca_file)")
	}
	return errors.Join(wrong...)
}
