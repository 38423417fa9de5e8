// Package policy is ClosedPaw's law: it reads a signed bundle and decides requests by it.
//
// It guarantees: what is not permitted is denied, and so is everything where a policy fails, a request does not fit
// the schema or there is no bundle; the order of policies and of files never matters; a [Bundle] comes only from a
// folder whose every byte is covered by a signature of a signer who is allowed at that time; it never changes after.
//
// It must never do anything else: it opens nothing but the fs.FS that it is given, knows no clock, no user database
// and no other package of this project, so that it can be used, tested and replayed anywhere.
//
// A bundle is a folder without subfolders:
//
//	manifest.json      version, serial, validity and the SHA-256 of every other file, see [Manifest]
//	manifest.json.sig  SSHSIG over manifest.json, namespace closedpaw-policy, armored:
//	                   ssh-keygen -Y sign -n closedpaw-policy -f KEY manifest.json
//	*.cedar            policies for [Schema]; each has a unique @id, may have @reason, and a permit may have
//	                   @approval("confirm") or @approval("authenticate")
//	tools.json         the tools that a model is offered, see [Tool]
//	profile.json       the limits of a sandbox, see [Profile]
package policy

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

//go:embed schema.cedarschema
var schemaText string

//go:embed default
var defaults embed.FS

// Schema is the Cedar schema that policies and requests must fit.
func Schema() string { return schemaText }

// Default is the source of the default bundle, by file name: everything but the manifest and its signature.
func Default() (map[string][]byte, error) {
	sub, err := fs.Sub(defaults, "default")
	if err != nil {
		return nil, fmt.Errorf("cannot read the default policy: %w", err)
	}
	files, err := ReadFolder(sub)
	if err != nil {
		return nil, fmt.Errorf("cannot read the default policy: %w", err)
	}
	return files, nil
}

// newValidator returns one for the embedded schema, in strict mode.
func newValidator() (*validate.Validator, error) {
	var s schema.Schema
	s.SetFilename("schema.cedarschema")
	if err := s.UnmarshalCedar([]byte(schemaText)); err != nil {
		return nil, fmt.Errorf("cannot parse the policy schema: %w", err)
	}
	r, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("cannot resolve the policy schema: %w", err)
	}
	return validate.New(r, validate.WithStrict()), nil
}
