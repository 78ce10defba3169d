package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	_ "github.com/notaryproject/notation-core-go/signature/jws" // the envelope's format
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"oras.land/oras-go/v2/registry/remote"
)

var notationKinds = []kind{
	{name: "Notation's signatures", client: "notation-go", tool: "github.com/notaryproject/notation-go", push: notationSign, take: notationVerify, hangs: true},
}

// repository is one as Notation's tools see it.
func (e *errand) repository(name string) (registry.Repository, error) {
	repo, err := remote.NewRepository(e.ref(name))
	if err != nil {
		return nil, err
	}
	repo.PlainHTTP = true
	return registry.NewRepository(repo), nil
}

// notationSign signs an image with a key made here.
func notationSign(e *errand) error {
	image, err := e.pushImage("notarised", "1", "notarised")
	if err != nil {
		return err
	}
	key, certificate, err := signingKey()
	if err != nil {
		return err
	}
	if _, err := e.write("truststore/x509/ca/e2e/e2e.crt", string(certificate.Raw)); err != nil {
		return err
	}
	repo, err := e.repository("notarised")
	if err != nil {
		return err
	}
	signs, err := signer.NewGenericSigner(key, []*x509.Certificate{certificate})
	if err != nil {
		return err
	}
	_, err = notation.Sign(e.context(), signs, repo, notation.SignOptions{
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: "application/jose+json"},
		ArtifactReference: e.ref("notarised@" + image),
	})
	return err
}

func signingKey() (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "e2e", Organization: []string{"entrepot"}, Country: []string{"NL"}, Province: []string{"ZH"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return key, certificate, err
}

// notationVerify verifies the signature strictly, with the certificate as the
// only one that is trusted.
func notationVerify(e *errand) error {
	policy := &trustpolicy.Document{
		Version: "1.0",
		TrustPolicies: []trustpolicy.TrustPolicy{{
			Name:                  "e2e",
			RegistryScopes:        []string{"*"},
			SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name},
			TrustStores:           []string{"ca:e2e"},
			TrustedIdentities:     []string{"*"},
		}},
	}
	verifies, err := verifier.New(policy, truststore.NewX509TrustStore(dir.NewSysFS(e.dir)), nil)
	if err != nil {
		return err
	}
	repo, err := e.repository("notarised")
	if err != nil {
		return err
	}
	found, outcomes, err := notation.Verify(e.context(), verifies, repo, notation.VerifyOptions{
		ArtifactReference: e.ref("notarised@" + e.digest("notarised")), MaxSignatureAttempts: 5,
	})
	for _, outcome := range outcomes {
		err = errors.Join(err, outcome.Error)
	}
	if err == nil && found.Digest.String() != e.digest("notarised") {
		err = fmt.Errorf("what is verified is %s, not %s", found.Digest, e.digest("notarised"))
	}
	return err
}
