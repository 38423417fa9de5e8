package policy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Namespace is that of a policy's signature: what was signed for something else is none.
const Namespace = "closedpaw-policy"

// Sign makes a bundle of files: they, with a manifest of m's serial and validity, and its signature. A manifest or
// signature among files is replaced. What Load would refuse is not signed.
func Sign(files map[string][]byte, m Manifest, signer ssh.Signer) (map[string][]byte, error) {
	if err := acceptable(signer.PublicKey()); err != nil {
		return nil, fmt.Errorf("cannot sign the policy: %w", err)
	}
	if err := Check(files); err != nil {
		return nil, fmt.Errorf("cannot sign the policy: %w", err)
	}
	m.Version, m.Files = 1, map[string]string{}
	m.NotBefore, m.Expires = m.NotBefore.UTC().Truncate(time.Second), m.Expires.UTC().Truncate(time.Second)
	for _, name := range content(files) {
		if !bundleName(name) {
			return nil, fmt.Errorf("cannot sign the policy: %.80q is no name of a bundle's file", name)
		}
		m.Files[name] = digest(files[name])
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("cannot sign the policy: manifest: %w", err)
	}
	manifest, err := m.encode()
	if err != nil {
		return nil, fmt.Errorf("cannot encode the manifest: %w", err)
	}
	sig, err := sshsig.Sign(bytes.NewReader(manifest), signer, sshsig.HashSHA512, Namespace)
	if err != nil {
		return nil, fmt.Errorf("cannot sign the policy: %w", err)
	}
	out := maps.Clone(files)
	out[ManifestFile], out[SignatureFile] = manifest, sshsig.Armor(sig)
	return out, nil
}

// verify says who signed message, or why nobody who may.
func verify(message, armored []byte, allowed []Signer, now time.Time) (string, error) {
	bad := func(kind error, reason string) (string, error) {
		return "", &Error{File: SignatureFile, Reason: reason, Fix: fixSign, Kind: kind}
	}
	sig, err := unarmor(armored)
	if err != nil {
		return bad(ErrUnsigned, err.Error())
	}
	if sig.Namespace != Namespace {
		return bad(ErrUnsigned, fmt.Sprintf("it was made for %.80q, not for %q", sig.Namespace, Namespace))
	}
	s, err := find(allowed, sig.PublicKey, now)
	if err != nil {
		return bad(ErrSigner, err.Error())
	}
	if err := sshsig.Verify(bytes.NewReader(message), sig, s.Key, sig.HashAlgorithm, Namespace); err != nil {
		return bad(ErrAltered, "it does not fit "+ManifestFile)
	}
	return s.Principals + " " + ssh.FingerprintSHA256(s.Key), nil
}

// unarmor reads an armored signature in the one form that ssh-keygen writes, up to the length of its lines, so that no
// two texts are the same signature.
func unarmor(b []byte) (*sshsig.Signature, error) {
	const begin, end = "-----BEGIN SSH SIGNATURE-----\n", "\n-----END SSH SIGNATURE-----\n"
	text, ok := strings.CutPrefix(string(b), begin)
	if ok {
		text, ok = strings.CutSuffix(text, end)
	}
	if !ok || strings.Contains(text, "\r") {
		return nil, errors.New("it is no armored SSH signature")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(text, "\n", ""))
	if err != nil {
		return nil, errors.New("it is no armored SSH signature: bad base64")
	}
	sig, err := sshsig.ParseSignature(blob)
	if err != nil {
		return nil, fmt.Errorf("it is no SSH signature: %w", err)
	}
	if !bytes.Equal(sig.Marshal(), blob) {
		return nil, errors.New("it is no SSH signature: something is hidden in it")
	}
	return sig, nil
}
