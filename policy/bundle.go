package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// Names of a bundle's files that are no policies.
const (
	ManifestFile  = "manifest.json"
	SignatureFile = "manifest.json.sig"
	ToolsFile     = "tools.json"
	ProfileFile   = "profile.json"
)

// Bounds of a bundle, in files and bytes.
const (
	maxFiles = 64
	maxFile  = 512 << 10
)

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// Bundle is a policy in force. It never changes. Its zero value denies everything.
type Bundle struct {
	manifest  Manifest
	digest    string
	signer    string
	validator *validate.Validator
	rules     rules
	tools     []Tool
	profile   Profile
}

// LoadOptions are what Load cannot know by itself.
type LoadOptions struct {
	Now       time.Time // for the validity of the bundle and of its signer
	MinSerial uint64    // the highest serial that was in force before; 0: none
}

// Load reads the bundle in dir. signers is the text of an allowed_signers file, see [ParseSigners]. Every error is an
// *Error that wraps a sentinel of this package.
func Load(dir fs.FS, signers []byte, o LoadOptions) (*Bundle, error) {
	files, err := ReadFolder(dir)
	if err != nil {
		return nil, err
	}
	return LoadFiles(files, signers, o)
}

// LoadFiles is Load for a bundle's files by name.
func LoadFiles(files map[string][]byte, signers []byte, o LoadOptions) (*Bundle, error) {
	allowed, err := ParseSigners(signers)
	if err != nil {
		return nil, &Error{File: "allowed_signers", Reason: err.Error(), Fix: fixSigners, Kind: ErrSigner}
	}
	for _, name := range []string{ManifestFile, SignatureFile} {
		if _, ok := files[name]; !ok {
			return nil, &Error{File: name, Reason: "it is missing: the policy is not signed", Fix: fixSign, Kind: ErrUnsigned}
		}
	}
	signer, err := verify(files[ManifestFile], files[SignatureFile], allowed, o.Now)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(files[ManifestFile])
	if err != nil {
		return nil, invalid(ManifestFile, err.Error())
	}
	if err := m.covers(files); err != nil {
		return nil, err
	}
	if err := m.inForce(o); err != nil {
		return nil, err
	}
	b, err := compile(files)
	if err != nil {
		return nil, err
	}
	b.manifest, b.digest, b.signer = m, digest(files[ManifestFile]), signer
	return b, nil
}

// Check says whether files would make a bundle, if they were signed. Manifest and signature are not looked at.
func Check(files map[string][]byte) error {
	_, err := compile(files)
	return err
}

// Serial is the bundle's; keep the highest and give it to the next Load.
func (b *Bundle) Serial() uint64 { return b.manifest.Serial }

// Digest is the SHA-256 of the manifest in hex: it stands for every byte of the bundle.
func (b *Bundle) Digest() string { return b.digest }

// Expires is when the bundle must not be used any more.
func (b *Bundle) Expires() time.Time { return b.manifest.Expires }

// Signer is who signed: the principals of the line in allowed_signers, and the key's fingerprint.
func (b *Bundle) Signer() string { return b.signer }

// Tools are those that a model is offered.
func (b *Bundle) Tools() []Tool { return slices.Clone(b.tools) }

// Profile has the limits of a sandbox.
func (b *Bundle) Profile() Profile { return b.profile }

// compile parses and checks all but the manifest and its signature.
func compile(files map[string][]byte) (*Bundle, error) {
	v, err := newValidator()
	if err != nil {
		return nil, err
	}
	b := &Bundle{validator: v, rules: rules{}}
	names := cedarFiles(files)
	for _, name := range names {
		if err := b.rules.add(name, files[name], v); err != nil {
			return nil, err
		}
	}
	if len(b.rules) == 0 {
		return nil, invalid("*.cedar", "there is no policy, so everything would be denied")
	}
	for _, need := range []string{ToolsFile, ProfileFile} {
		if _, ok := files[need]; !ok {
			return nil, invalid(need, "it is missing")
		}
	}
	if b.tools, err = ParseTools(files[ToolsFile]); err != nil {
		return nil, invalid(ToolsFile, err.Error())
	}
	if b.profile, err = ParseProfile(files[ProfileFile]); err != nil {
		return nil, invalid(ProfileFile, err.Error())
	}
	return b, nil
}

// ReadFolder reads the files of a bundle's folder without judging what they say, for whoever signs it: regular files
// with a bundle's names and sizes, and nothing else.
func ReadFolder(dir fs.FS) (map[string][]byte, error) {
	folder := func(err error) error {
		return &Error{File: "the policy folder", Reason: err.Error(), Fix: "mend the folder", Kind: ErrInvalid}
	}
	f, err := dir.Open(".")
	if err != nil {
		return nil, folder(err)
	}
	defer f.Close()
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, folder(errors.New("it is not a folder"))
	}
	entries, err := d.ReadDir(maxFiles + 1)
	if err != nil && err != io.EOF {
		return nil, folder(err)
	}
	if len(entries) > maxFiles {
		return nil, folder(fmt.Errorf("it has more than %d files", maxFiles))
	}
	files := make(map[string][]byte, len(entries))
	for _, e := range entries {
		name := e.Name()
		if !bundleName(name) {
			return nil, &Error{File: fmt.Sprintf("%.80q", name), Reason: "it does not belong into a policy folder",
				Fix: "remove it; there may be " + ManifestFile + ", " + SignatureFile + ", " + ToolsFile + ", " + ProfileFile + " and NAME.cedar in lower case", Kind: ErrAltered}
		}
		b, err := readFile(dir, e)
		switch {
		case errors.Is(err, errNotRegular):
			return nil, &Error{File: name, Reason: "it is not a regular file", Fix: "replace it by the file itself", Kind: ErrAltered}
		case errors.Is(err, errTooBig):
			return nil, &Error{File: name, Reason: fmt.Sprintf("it is bigger than %d bytes", maxFile), Fix: "make it shorter", Kind: ErrInvalid}
		case err != nil:
			return nil, &Error{File: name, Reason: err.Error(), Fix: "mend the file", Kind: ErrInvalid}
		}
		files[name] = b
	}
	return files, nil
}

func bundleName(name string) bool {
	switch name {
	case ManifestFile, SignatureFile, ToolsFile, ProfileFile:
		return true
	}
	return namePattern.MatchString(name) && strings.HasSuffix(name, ".cedar")
}

func readFile(dir fs.FS, e fs.DirEntry) ([]byte, error) {
	if !e.Type().IsRegular() {
		return nil, errNotRegular
	}
	f, err := dir.Open(e.Name())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, errNotRegular
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, errTooBig
	}
	return b, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// content are the names of files that a manifest covers, sorted.
func content(files map[string][]byte) []string {
	names := slices.Sorted(maps.Keys(files))
	return slices.DeleteFunc(names, func(n string) bool { return n == ManifestFile || n == SignatureFile })
}
