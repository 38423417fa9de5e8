package policy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Manifest is manifest.json: what a signature covers.
type Manifest struct {
	Version   int               `json:"version"`    // 1
	Serial    uint64            `json:"serial"`     // 1 to 2^53-1; higher than that of the bundle before
	NotBefore time.Time         `json:"not_before"` // RFC 3339
	Expires   time.Time         `json:"expires"`    // RFC 3339; not valid from then on
	Files     map[string]string `json:"files"`      // every other file but the signature: SHA-256 in lower-case hex
}

// MaxSerial is the highest serial: what every JSON reader keeps exactly.
const MaxSerial = 1<<53 - 1

var digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ParseManifest reads manifest.json strictly.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := strict(b, &m); err != nil {
		return Manifest{}, err
	}
	if err := m.check(); err != nil {
		return Manifest{}, err
	}
	for name, sum := range m.Files {
		if !bundleName(name) || name == ManifestFile || name == SignatureFile {
			return Manifest{}, fmt.Errorf("files: %.80q is no name of a bundle's file", name)
		}
		if !digestPattern.MatchString(sum) {
			return Manifest{}, fmt.Errorf("files: the digest of %s must be 64 lower-case hex digits", name)
		}
	}
	return m, nil
}

func (m Manifest) check() error {
	switch {
	case m.Version != 1:
		return fmt.Errorf("version: must be 1")
	case m.Serial < 1 || m.Serial > MaxSerial:
		return fmt.Errorf("serial: must be from 1 to 2^53-1")
	case m.NotBefore.IsZero():
		return errors.New("not_before: must be a time like 2026-01-31T00:00:00Z")
	case !m.Expires.After(m.NotBefore):
		return errors.New("expires: must be a time after not_before")
	}
	return nil
}

// encode writes m as Sign signs it: indented, for people.
func (m Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	err := json.MarshalWrite(&b, m, json.Deterministic(true), jsontext.WithIndent("  "))
	b.WriteByte('\n')
	return b.Bytes(), err
}

// covers says whether files are exactly those that m names.
func (m Manifest) covers(files map[string][]byte) error {
	for _, name := range content(files) {
		sum, ok := m.Files[name]
		if !ok {
			return &Error{File: name, Reason: "it was added after the policy was signed", Fix: "remove it, or " + fixSign, Kind: ErrAltered}
		}
		if sum != digest(files[name]) {
			return &Error{File: name, Reason: "it was changed after the policy was signed", Fix: fixSign, Kind: ErrAltered}
		}
	}
	for name := range m.Files {
		if _, ok := files[name]; !ok {
			return &Error{File: name, Reason: "it is missing, though the signature covers it", Fix: "put it back, or " + fixSign, Kind: ErrAltered}
		}
	}
	return nil
}

func (m Manifest) inForce(o LoadOptions) error {
	const day = time.RFC3339
	switch {
	case m.Serial < o.MinSerial:
		return &Error{File: ManifestFile, Reason: fmt.Sprintf("serial %d is older than %d, which was in force before", m.Serial, o.MinSerial),
			Fix: "put the newer policy back, or " + fixSign, Kind: ErrRolledBack}
	case o.Now.Before(m.NotBefore):
		return &Error{File: ManifestFile, Reason: fmt.Sprintf("it is valid from %s, and now is %s", m.NotBefore.Format(day), o.Now.UTC().Format(day)),
			Fix: "set the clock, or " + fixSign, Kind: ErrExpired}
	case !o.Now.Before(m.Expires):
		return &Error{File: ManifestFile, Reason: fmt.Sprintf("it expired at %s", m.Expires.Format(day)), Fix: fixSign, Kind: ErrExpired}
	}
	return nil
}

// strict parses one JSON value: names exactly as written, known and once each, UTF-8, nothing behind it.
func strict(b []byte, v any) error {
	err := json.Unmarshal(b, v, json.RejectUnknownMembers(true))
	var at *json.SemanticError
	if errors.As(err, &at) && errors.Is(err, json.ErrUnknownName) {
		return fmt.Errorf("%s: there is no such name", at.JSONPointer)
	}
	return err
}
